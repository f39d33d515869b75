"""The gradient grows with every step it is carried back through a recurrence.

Why it harms

If the step's Jacobians expand,

    ||dL/dh_t|| ~ exp(slope * (T - t)),   slope > 0

one long sequence makes a step that undoes all learning. Forward, such a net is chaotic: a small
change of an early input changes everything after it.

An example

    cell = nn.RNN(8, 32, nonlinearity="relu")
    cell.weight_hh_l0.data = 1.5 * torch.eye(32)         # 1.5**30 over 30 steps: 5 decades

How it is measured

ln of the norm of the whole gradient at the state of every step, Theil-Sen slope times the number of
steps: growth beyond `limit`, and beyond ln(steps), is a warning, beyond twice `limit` an error.

Limits

    limit = 3   nats over the steps: 20 times. As over the depth, up to 3 a net trains, beyond 10
                not (measured)

Remedies

An orthogonal recurrent matrix, or one of smaller gain (retrain). Clip the gradient by its norm
(advice: it bounds the step, the horizon stays). A gated cell (retrain).

When it is wrong

With a loss at every step the early states collect the gradients of all later ones, which is growth
by addition, at most by a factor of the number of steps. So much is not reported.

References: Pascanu et al. 2013; Le et al. 2015 (IRNN); Engelken et al. 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, Remedy
from unvanish.core.ledger import DECADE
from unvanish.core.trace import Trace
from unvanish.rules import _places, _time
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import MEASURED

NEEDS = ("step", "time")
LIVE = True
EXPLAINS = ("NUM001", "INI002", "OUT003", "ACT001", "PRC002")


def check(trace: Trace, *, limit: float = 3.0) -> Iterable[Fault]:
    """One fault naming the recurrences whose gradient grows going back."""
    readings = sorted(_time.read(trace), key=lambda r: -r.ratio)
    growing = [r for r in readings if r.ratio > max(limit, math.log(r.steps))]
    if not growing:
        return []
    worst = growing[0]
    factor = math.exp(worst.slope)
    targets = tuple(r.name for r in growing)[: _places.MOST]
    return [
        Fault(
            severity="error" if worst.ratio > 2 * limit else "warning",
            cause=f"{worst.name} multiplies the gradient by {factor:.2f} a step back: "
            f"{worst.ratio / DECADE:.1f} decades over {worst.steps} steps",
            sites=targets,
            evidence=(
                Evidence(
                    "gradient at the first step over the last",
                    worst.ratio,
                    unit="nats",
                    limit=f"< {limit:g}",
                    site=worst.name,
                ),
                Evidence(
                    "factor a step", factor, limit=f"< {math.exp(limit / worst.steps):.3f}", site=worst.name
                ),
            ),
            remedies=(
                Remedy("orthogonal-recurrence", targets, "an orthogonal matrix keeps the norm"),
                Remedy(
                    "replace-cell",
                    targets,
                    "a gated cell bounds what a step can do",
                    parameters={"to": "gru"},
                ),
                Remedy("clip-gradient", (), "bounds the step of a bad sequence", safety="advice"),
            ),
            direction="exploding",
            tier=MEASURED,
            size=worst.ratio,
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
