"""The gradient that reaches a recurrent state keeps too little a step back: early steps are not
learned.

Why it harms

Through time the gradient is a product of the step's Jacobians,

    dL/dh_t = (prod_(s>t) J_s)^T dL/dh_T,   ||dL/dh_t|| ~ exp(-slope * (T - t))

and what lies further back than the horizon of 3/slope steps cannot be learned. PyTorch's default
LSTM forgets half every 1.7 steps.

An example

    states, _ = nn.LSTM(8, 32, batch_first=True)(x)      # 60 steps
    y = head(states[:, -1])                              # the first ones leave no trace

How it is measured

ln of the norm of the whole gradient at the state of every step: fused layers are replayed step by
step in float64, loops are read from their calls, or from what they multiply a state by. Theil-Sen
slope times the number of steps: a loss beyond `limit` is a warning, beyond CLEAR times it an error.
Gates open while they learn, so an LSTM or a GRU at its usual start, by hand too, is a note over
short sequences, and never more than a warning. A loss at every step feeds every state, and then the
profile is flat and nothing is reported.

A state that leaves the graph after every step (detach, .data, numbers made anew), whatever the step
is made of, so that no gradient goes further back than one, is noted; if the loss reads the last
step alone, it is a warning. A window of several steps that is cut on purpose is left alone.

Limits

    limit = 5     nats over the steps: 1/150 is left. Of 107 plain RNNs (torch's start, orthogonal,
                  Gaussian; tanh and ReLU; 16 to 128 units; 5 to 60 steps) that had to tell which
                  symbol came first, Adam taught 62 of 63 with 2 to 5 nats in 1,000 steps, 11 of 21
                  with 5 to 7, and beyond it 7 of 21, most of them without noise in between
    CLEAR = 1.2   times the limit is an error: beyond it 5 of 22 learned with noise in between
    SHORT = 20    steps over which a gated cell at its usual start is only noted: such ones are
                  trained every day
    USUAL = 0.5   kept a step by a gated cell at its usual start: PyTorch's keep 0.57 to 0.65, with
                  8 to 256 units (measured); a gate that starts more closed keeps less
    GONE = 1000   nats, if the first steps get exactly nothing: a size to order it by, no limit

Remedies

Chrono biases for LSTM and GRU, from the longest dependency (retrain). An orthogonal recurrent
matrix (retrain). LSTM or GRU in place of a plain RNN (retrain). Attention over the steps (advice).

When it is wrong

If only the last few steps matter for the task, forgetting is right; and if nothing comes between
the early step and the end, Adam finds it through 8 nats too. In a watched run it is a note while
the loss falls, and nothing once the run has converged.

References: Hochreiter 1991; Bengio et al. 1994; Pascanu et al. 2013; Tallec and Ollivier
2018; Arjovsky et al. 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy, Severity
from unvanish.core.ledger import DECADE
from unvanish.core.trace import Trace
from unvanish.rules import _converged, _learning, _places, _time
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import MEASURED

NEEDS = ("step", "time")
LIVE = True
EXPLAINS = ("DEP001", "INI001", "ACT002")
CLEAR = 1.2
SHORT = 20  # steps
GATED = "gated loop"  # a cell by hand
USUAL = 0.5  # kept a step
GONE = 1e3  # nats


def check(trace: Trace, *, limit: float = 5.0) -> Iterable[Fault]:
    """One fault naming the recurrences that forget, and a note for each cell that is detached."""
    notes = [_note_detached(*cell) for cell in trace.facts.get("severed", {}).items()]
    try:
        readings = sorted(_time.read(trace), key=lambda r: r.ratio)
    except NotApplicable:
        if notes:
            return notes
        raise
    fading = [r for r in readings if r.ratio < -limit]
    if not fading or _converged.has_converged(trace):
        return notes
    return [_report_loss(trace, fading, limit), *notes]


def _report_loss(trace: Trace, fading: list[_time.TimeReading], limit: float) -> Fault:
    worst, steps = fading[0], fading[0].steps
    exact = math.isfinite(worst.ratio)
    loss = f"{-worst.ratio / DECADE:.1f} decades" if exact else "all of it"
    ratio = worst.ratio if exact else -GONE
    kept = math.exp(worst.slope)
    targets = tuple(r.name for r in fading)[: _places.MOST]
    forgives = trace.facts.get("live") and _learning.learns(trace)  # it learns without the far past
    gated = _is_gated(worst) and kept >= USUAL
    harsh: Severity = "error" if -worst.ratio > CLEAR * limit and not gated else "warning"
    return Fault(
        severity="note" if forgives or (gated and steps <= SHORT) else harsh,
        cause=f"{worst.name} loses {loss} over {steps} steps: it keeps {kept:.2f} a step, a horizon of "
        f"{worst.horizon:.0f} steps" + (", which matters only if early steps matter" if gated else ""),
        sites=targets,
        evidence=(
            Evidence(
                "gradient at the first step over the last",
                ratio,
                unit="nats",
                limit=f"> {-limit:g}",
                site=worst.name,
            ),
            Evidence("kept a step", kept, limit=f"> {math.exp(-limit / steps):.3f}", site=worst.name),
            Evidence("horizon", worst.horizon, unit="steps", limit=f">= {steps}", site=worst.name),
        ),
        remedies=(
            *_carry(worst, targets),
            Remedy("attention", targets, "a direct path from every step", safety="advice"),
        ),
        direction="vanishing",
        tier=MEASURED,
        size=-ratio,
    )


def _is_gated(reading: _time.TimeReading) -> bool:
    """Whether the cell is an LSTM or a GRU, or one by hand that multiplies by a sigmoid."""
    return any(kind in reading.kind for kind in ("lstm", "gru", GATED))


def _note_detached(path: str, found: tuple[int, int, str, str]) -> Fault:
    """A note, since it may be meant; a warning if the loss reaches the last step alone."""
    steps, reached, where, line = found
    place, name = f" at {line}" if line else "", path or "(model)"
    why = "the gradient then reaches the steps before; detach after a number of steps, not after each"
    return Fault(
        severity="warning" if reached == 1 else "note",
        cause=f"the state of {name} leaves the graph at each step{place}: its gradient goes back one step of "
        f"{steps}",
        sites=(name,),
        evidence=(Evidence("steps the gradient goes back", 1, unit=f"of {steps}", site=name),),
        remedies=(Remedy("remove-detach", (where or "(model)",), why),),
        direction="blocked",
        tier=MEASURED,
        size=float(steps),
    )


def _carry(worst: _time.TimeReading, targets: tuple[str, ...]) -> tuple[Remedy, ...]:
    """What carries the gradient through this kind of cell."""
    if worst.kind == GATED:
        why = "a bias of the gate that keeps the state, at which it starts open: ln(steps)"
        return (Remedy("open-gate", targets, why, safety="advice"),)
    if _is_gated(worst):
        why = "gates that start open for as many steps as the sequence has"
        return (Remedy("chrono-bias", targets, why, parameters={"steps": worst.steps}),)
    return (
        Remedy("orthogonal-recurrence", targets, "an orthogonal matrix keeps the norm"),
        Remedy(
            "replace-cell",
            targets,
            "a gated cell carries its state past the nonlinearity",
            parameters={"to": "lstm"},
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
