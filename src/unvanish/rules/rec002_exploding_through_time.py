"""The gradient grows with every step it is carried back through a recurrence.

Why it harms

Where the step's Jacobians expand,

    ||dL/dh_t|| ~ exp(slope * (T - t)),   slope > 0

one long sequence makes a step that undoes all learning. Forward, such a net is chaotic: a small
change of an early input changes everything after it.

How it is measured

ln of the norm of the whole gradient at the state of every step, Theil-Sen slope times the number of
steps; `limit` nats (default 3) is a warning, twice that an error.

Remedies

An orthogonal recurrent matrix, or one of smaller gain (retrain). Clip the gradient by its norm
(advice: it bounds the step, the horizon stays). A gated cell (retrain).

When it is wrong

With a loss at every step the early states collect the gradients of all later ones, which is growth
by addition, at most by a factor of the number of steps.

References: Pascanu et al. 2013; Le et al. 2015 (IRNN); Engelken et al. 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, Finding, Remedy, Severity
from unvanish.core.ledger import DECADE
from unvanish.core.trace import Trace
from unvanish.rules import _time

NEEDS = ("step", "time")
LIVE = True
EXPLAINS = ("NUM001", "INI002", "OUT003", "ACT001", "PRC002")


def check(trace: Trace, *, limit: float = 3.0) -> Iterable[Finding]:
    """One finding naming the recurrences whose gradient grows going back."""
    found = sorted(_time.recurrences(trace), key=lambda r: -r.ratio)
    growing = [r for r in found if r.ratio > max(limit, math.log(len(r.state_log)))]
    if not growing:
        return []
    worst = growing[0]
    steps, factor = len(worst.state_log), math.exp(worst.slope)
    cause = (
        f"{worst.name} multiplies the gradient by {factor:.2f} a step back: "
        f"{worst.ratio / DECADE:.1f} decades over {steps} steps"
    )
    evidence = (
        Evidence("gradient at the first step over the last", worst.ratio, "nats", f"< {limit:g}", worst.name),
        Evidence("factor a step", factor, "", f"< {math.exp(limit / steps):.3f}", worst.name),
    )
    targets = tuple(r.name for r in growing)[:12]
    remedies = (
        Remedy("orthogonal-recurrence", targets, "an orthogonal matrix keeps the norm", "retrain"),
        Remedy("replace-cell", targets, "a gated cell bounds what a step can do", "retrain", {"to": "gru"}),
        Remedy("clip-gradient", (), "bounds the step of a bad sequence", "advice"),
    )
    severity: Severity = "error" if worst.ratio > 2 * limit else "warning"
    return [
        Finding(
            "REC002",
            "exploding-through-time",
            severity,
            cause,
            targets,
            evidence,
            remedies,
            "exploding",
            worst.ratio,
        )
    ]


def sick() -> Case:
    """A ReLU RNN whose recurrent matrix is 1.5 times the identity."""
    return _case(1.5)


def healthy() -> Case:
    """The IRNN: a ReLU RNN that starts at the identity."""
    return _case(1.0)


def _case(gain: float) -> Case:
    import torch
    from torch import Tensor, nn

    class Last(nn.Module):
        """A ReLU RNN read out at its last step."""

        def __init__(self) -> None:
            super().__init__()
            self.core, self.head = nn.RNN(8, 32, nonlinearity="relu", batch_first=True), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.core(x)[0][:, -1])
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = Last()
        net.core.weight_hh_l0.data = gain * torch.eye(32)
        for bias in (net.core.bias_ih_l0, net.core.bias_hh_l0):
            nn.init.zeros_(bias)
        nn.init.normal_(net.core.weight_ih_l0, std=0.01)
        batch = torch.randn(16, 30, 8), torch.randint(0, 4, (16,))
        return Case(net, batch, nn.CrossEntropyLoss(), story="a ReLU RNN over 30 steps")
