"""Residual branches of full strength make the stream, and the gradient, grow block by block.

Why it harms

Without a normalisation on it and without scaled branches, each block adds its branch's variance to
the stream:

    x_(l+1) = x_l + f_l(x_l),   ||x_L||^2 ~ (1 + a^2)^L ||x_0||^2

and the gradient grows by the same factor on its way back. After some tens of blocks activations,
logits and steps are too large by decades.

An example

    def forward(self, x):
        return x + self.layer(torch.relu(x))     # doubles the variance: 24 blocks make 2**24

How it is measured

Theil-Sen slope of ln ||d|| over the layers and blocks, times their number: beyond `limit` it is a
warning, beyond twice that an error. The rule fires if rows with an identity path bear most of the
growth, and nothing normalises them. In a watched run the size of the stream is followed, by depth:
if it grows towards LARGE, that is a fault with the steps that are left.

Limits

    limit = 3   nats over the depth: up to 3 a net trains, from 5.4 to 6.6 in part, beyond 10 not
                (measured, SGD and Adam)
    LARGE = 10_000    root mean square: float16 ends at 65504, and some elements are several times
                      it

Remedies

Scale each branch by 1/sqrt(blocks), or by a learned factor that starts at zero (retrain). Start the
last weight of each branch at zero (retrain). Put a normalisation in front of each branch (retrain).

When it is wrong

A normalisation on the stream's end hides the growth from the output, but not from the blocks.

References: Balduzzi et al. 2017; Zhang et al. 2019 (Fixup); De and Smith 2020 (SkipInit);
Brock et al. 2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.ledger import DECADE
from unvanish.core.trace import Trace
from unvanish.rules import _depth, _places, _trend
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import REMARK

NEEDS = ("static", "step")
LIVE = True
LARGE = 10_000
EXPLAINS = ("NUM001", "INI002", "OUT003", "PRC002", "DEP001")


def check(trace: Trace, *, limit: float = 3.0) -> Iterable[Fault]:
    """One fault if residual rows bear an exploding gradient, or, in a watched run, the stream grows."""
    if trace.facts.get("live"):
        return _foresee(trace)
    found = _depth.blame(__name__, trace, limit)
    if found is None:
        return []
    residual = [e for e in found.entries if trace.sites[e.site].facts.get("row_residual")]
    if len(residual) == 1 and trace.where("step"):  # a recurrence that lies between two layers
        return []
    blocks = len(residual)
    factor = math.exp(found.residual / max(1, blocks))
    targets = _places.label(trace, found.culprits)
    return _depth.report(
        trace,
        found,
        cause=f"{_depth.describe(found)}: each of {blocks} residual blocks multiplies it by "
        f"{factor:.2f}, nothing scales them",
        evidence=(
            Evidence("growth by residual blocks", found.residual / DECADE, unit="decades"),
            Evidence(
                "gain of a block", factor, limit="1 + 1/blocks", site=trace.sites[found.culprits[0]].label
            ),
        ),
        remedies=(
            Remedy(
                "scale-branches",
                targets,
                "branches of 1/sqrt(blocks) keep the stream's size",
                parameters={"scale": blocks**-0.5},
            ),
            Remedy("zero-init-branches", targets, "SkipInit or Fixup: every block starts as the identity"),
            Remedy(
                "pre-normalisation", targets, "a normalisation in front of each branch bounds what it adds"
            ),
        ),
    )


def _foresee(trace: Trace) -> list[Fault]:
    """A stream that will be too large if it goes on as it does."""
    axis = trace.depth()
    if axis is None:
        raise NotApplicable("the watched model has no depth axis")
    found = {i: _trend.follow(trace, i, "forward_rms", LARGE, log=True) for i in axis.sites}
    first = _trend.find_first(found)
    if first is None:
        return []
    crossing, where = first.crossing, trace.sites[first.site].label
    now, start = math.exp(crossing.now), math.exp(crossing.start)
    return [
        Fault(
            severity="warning",
            cause=f"the activations of {where} grow, from {start:.2g} to {now:.2g} so far, and reach "
            f"{LARGE:g} {crossing.describe()}",
            sites=_places.label(trace, first.sites),
            evidence=(
                Evidence("root mean square", now, limit=f"< {LARGE:g}", site=where),
                Evidence("steps until it is at the limit", crossing.steps, site=where),
            ),
            remedies=(
                Remedy("weight-decay", (where,), "it holds the weights that write the stream", "advice"),
                Remedy("lower-learning-rate", (), "what grows grows fastest under long steps", "advice"),
            ),
            direction="exploding",
            tier=REMARK,
        )
    ]


def sick() -> Case:
    """Twenty-four unscaled residual blocks."""
    return _case(1.0)


def healthy() -> Case:
    """The same blocks, scaled by 1/sqrt(24)."""
    return _case(24**-0.5)


def _case(strength: float) -> Case:
    import torch
    from torch import Tensor, nn

    class Block(nn.Module):
        """x + strength * W relu(x)."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)
            nn.init.kaiming_normal_(self.layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(torch.relu(x))
            return x + strength * y

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Linear(64, 1)
        net: Any = nn.Sequential(*[Block() for _ in range(24)], head)
        return Case(net, (torch.randn(32, 64), torch.randn(32, 1)), nn.MSELoss(), story="24 residual blocks")
