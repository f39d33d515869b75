"""The gradient that reaches a recurrent state keeps too little a step back: early steps are not
learned.

Why it harms

Through time the gradient is a product of the step's Jacobians,

    dL/dh_t = (prod_(s>t) J_s)^T dL/dh_T,   ||dL/dh_t|| ~ exp(-slope * (T - t))

and what lies further back than the horizon of 3/slope steps cannot be learned. PyTorch's default
LSTM forgets half every 1.7 steps.

How it is measured

ln of the norm of the whole gradient at the state of every step: fused layers are replayed step by
step in float64, loops are read from their calls. Theil-Sen slope times the number of steps; `limit`
nats (default 3) is a warning, twice that an error. A loss at every step feeds every state, and then
the profile is flat and nothing is reported. A cell whose state is detached after every step, so
that no gradient goes further back than one, is noted.

Remedies

Chrono biases for LSTM and GRU, from the longest dependency (retrain). An orthogonal recurrent
matrix (retrain). LSTM or GRU in place of a plain RNN (retrain). Attention over the steps (advice).

When it is wrong

Where only the last few steps matter for the task, forgetting is right. Under watch it is a note
while the loss falls, and nothing once the run has converged.

References: Hochreiter 1991; Bengio et al. 1994; Pascanu et al. 2013; Tallec and Ollivier
2018; Arjovsky et al. 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.ledger import DECADE
from unvanish.core.trace import Trace
from unvanish.rules import _history, _time

NEEDS = ("step", "time")
LIVE = True
EXPLAINS = ("DEP001", "INI001", "ACT002")


def check(trace: Trace, *, limit: float = 3.0) -> Iterable[Finding]:
    """One finding naming the recurrences that forget."""
    notes = [_severed(*item) for item in trace.facts.get("severed", {}).items()]
    try:
        found = sorted(_time.recurrences(trace), key=lambda r: r.ratio)
    except NotApplicable:
        if notes:
            return notes
        raise
    fading = [r for r in found if r.ratio < -limit]
    if not fading or _history.converged(trace):
        return notes
    worst = fading[0]
    steps = len(worst.state_log)
    gone = "all of it" if math.isinf(worst.ratio) else f"{-worst.ratio / DECADE:.1f} decades"
    keeps = math.exp(worst.slope) if math.isfinite(worst.slope) else 0.0
    cause = (
        f"{worst.name} loses {gone} over {steps} steps: it keeps {keeps:.2f} a step, a horizon of "
        f"{worst.horizon:.0f} steps"
    )
    ratio = worst.ratio if math.isfinite(worst.ratio) else -1e3
    evidence = (
        Evidence("gradient at the first step over the last", ratio, "nats", f"> {-limit:g}", worst.name),
        Evidence("kept a step", keeps, "", f"> {math.exp(-limit / steps):.3f}", worst.name),
        Evidence("horizon", worst.horizon, "steps", f">= {steps}", worst.name),
    )
    targets = tuple(r.name for r in fading)[:12]
    remedies = (
        *_gates(worst, targets, steps),
        Remedy("attention", targets, "a direct path from every step", "advice"),
    )
    severity: Severity = "error" if -worst.ratio > 2 * limit else "warning"
    if trace.facts.get("live") and _history.learns(trace):
        severity = "note"  # it learns without the far past
    return [
        Finding(
            "REC001",
            "vanishing-through-time",
            severity,
            cause,
            targets,
            evidence,
            remedies,
            "vanishing",
            -ratio,
        ),
        *notes,
    ]


def _severed(path: str, found: tuple[int, str]) -> Finding:
    """A note, for it may be meant."""
    steps, where = found
    cause = f"the state of {path} leaves the graph at each step: its gradient goes back one step of {steps}"
    evidence = (Evidence("steps the gradient goes back", 1, f"of {steps}", "", path),)
    why = "the gradient then reaches the steps before; detach every so many steps, not at each"
    remedy = Remedy("remove-detach", (where or "(model)",), why, "retrain")
    name = "vanishing-through-time"
    return Finding("REC001", name, "note", cause, (path,), evidence, (remedy,), "blocked", float(steps))


def _gates(worst: _time.Recurrence, targets: tuple[str, ...], steps: int) -> tuple[Remedy, ...]:
    if "lstm" in worst.kind or "gru" in worst.kind:
        why = "gates that start open for as many steps as the sequence has"
        return (Remedy("chrono-bias", targets, why, "retrain", {"steps": steps}),)
    return (
        Remedy("orthogonal-recurrence", targets, "an orthogonal matrix keeps the norm", "retrain"),
        Remedy(
            "replace-cell",
            targets,
            "a gated cell carries its state past the nonlinearity",
            "retrain",
            {"to": "lstm"},
        ),
    )


def sick() -> Case:
    """PyTorch's default LSTM over 60 steps, read out at the end."""
    return _case(chrono=False)


def healthy() -> Case:
    """The same LSTM with chrono biases."""
    return _case(chrono=True)


def _case(chrono: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Last(nn.Module):
        """An LSTM read out at its last step."""

        def __init__(self) -> None:
            super().__init__()
            self.core, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.core(x)[0][:, -1])
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = Last()
        steps = 60
        if chrono:
            bias = torch.log(torch.rand(32) * (steps - 2) + 1)
            nn.init.zeros_(net.core.bias_hh_l0)
            net.core.bias_ih_l0.data[32:64], net.core.bias_ih_l0.data[:32] = bias, -bias
        batch = torch.randn(16, steps, 8), torch.randint(0, 4, (16,))
        return Case(net, batch, nn.CrossEntropyLoss(), story="an LSTM over 60 steps")
