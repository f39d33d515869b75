"""The gradient is lost or grows over the depth and no rule knows why; the rows that bear it are
named.

Why it harms

Layers whose gradient is decades smaller than the others' hardly move, for any cause. The known
causes are weights, activations, normalisations and residual sums; an operation of your own, or two
paths that cancel, can do the same.

An example

    def forward(self, x):
        y = torch.relu(self.layer(x))
        return 0.1 * torch.cat([y[:, :32], x[:, 32:]], 1)     # a tenth is left, twelve times over

How it is measured

Theil-Sen slope of ln ||d|| over the layers, times their number, as for every rule on depth. Only
what would be an error there is reported, beyond twice `limit`, and only as a warning. Growth that
residual sums bear is not reported. Any other finding is taken for the cause.

Limits

    limit = 3   nats over the depth: up to 3 a net trains, from 5.4 to 6.6 in part, beyond 10 not
                (measured, SGD and Adam)

Remedies

Scale the layers until each keeps its gradient, measured on your batch (retrain). Put a
normalisation after each layer (retrain). Add skip connections (retrain). Or look at what the named
rows do.

When it is wrong

A network may be meant to gate most of its gradient away; say so with `ignore = ["DEP003"]`.

References: Mishkin and Matas 2016 (LSUV); Ioffe and Szegedy 2015; He et al. 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, Remedy
from unvanish.core.ledger import DECADE
from unvanish.core.limits import BEARS
from unvanish.core.trace import Trace
from unvanish.rules import _depth, _places
from unvanish.rules._fault import Fault

NEEDS = ("static", "step")
YIELDS = True


def check(trace: Trace, *, limit: float = 3.0) -> Iterable[Fault]:
    """One fault if the depth is out of bounds and nothing bears it."""
    found = _depth.require(trace, limit)
    sign = math.copysign(1.0, found.ratio)
    grows_as_a_sum = sign > 0 and found.residual > BEARS * found.ratio
    if found.severity != "error" or found.cause or grows_as_a_sum:
        return []
    worst = sorted((e for e in found.entries if sign * e.gain > 0), key=lambda e: -sign * e.gain)
    found = replace(found, culprits=tuple(e.site for e in worst))
    targets = _places.label(trace, found.culprits)
    cause = f"{_depth.describe(found)} and no rule knows why"
    evidence: tuple[Evidence, ...] = ()
    if worst:
        verb = "loses" if sign < 0 else "gains"
        cause += f"; most at {targets[0]}"
        evidence = (
            Evidence(
                f"the row that {verb} most",
                worst[0].gain / DECADE,
                unit="decades",
                limit="0",
                site=targets[0],
            ),
        )
    return _depth.report(
        trace,
        found,
        cause=cause,
        evidence=evidence,
        remedies=(
            Remedy(
                "backward-lsuv", targets, "scales each layer until it keeps its gradient, whatever the cause"
            ),
            Remedy(
                "insert-normalisation", targets, "a normalisation makes the gain independent of the weights"
            ),
            Remedy("add-skips", targets, "a path around each layer that loses nothing"),
        ),
        worst="warning",
    )


def sick() -> Case:
    """Half of the features are updated, half are passed on, and both are damped to a tenth."""
    return _case(0.1)


def healthy() -> Case:
    """The same, undamped."""
    return _case(1.0)


def _case(kept: float) -> Case:
    import torch
    from torch import Tensor, nn

    class Half(nn.Module):
        """A layer of which half is used, beside half of its input."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)
            nn.init.kaiming_normal_(self.layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.layer(x))
            return torch.cat([kept * y[:, :32], kept * x[:, 32:]], 1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(*[Half() for _ in range(12)], nn.Linear(64, 10))
        batch = torch.randn(32, 64), torch.randint(0, 10, (32,))
        return Case(net, batch, nn.CrossEntropyLoss(), story="twelve layers of one's own")
