"""Batch statistics in a deep plain stack: every BatchNorm multiplies the gradient a little.

Why it harms

BatchNorm keeps the forward pass in order, but in a plain stack the gradient grows with every layer,
by

    ln(pi / (pi - 1)) / 2 = 0.19 nats a ReLU layer

for any weights. Fifty layers make four decades; no initialisation and no learning rate takes it
away, only skip connections do. With them, BatchNorm makes each block start close to the identity.

An example

    def forward(self, x):
        return torch.relu(self.norm(self.layer(x)))      # forty times over: 1.21 a layer

How it is measured

Theil-Sen slope of ln ||d|| over the layers, times their number: beyond `limit` it is a warning,
beyond twice that an error. The rule fires if at least every second layer has a normalisation with
batch statistics and no identity path leads past it.

Limits

    limit = 3   nats over the depth: up to 3 a net trains, from 5.4 to 6.6 in part, beyond 10 not
                (measured, SGD and Adam); 5.5 here, since most layers are normalised

Remedies

Add skip connections around pairs of layers (retrain). Replace BatchNorm by LayerNorm, or remove it
and start at the critical point (retrain).

When it is wrong

In evaluation mode the statistics are constants and the effect is gone; nothing is reported then.

References: Yang et al. 2019 (a mean field theory of batch normalization); De and Smith
2020; He et al. 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _depth, _places
from unvanish.rules._fault import Fault

NEEDS = ("static", "step")
EXPLAINS = ("NUM001", "INI002", "DEP001", "PRC002")


def check(trace: Trace, *, limit: float = 3.0) -> Iterable[Fault]:
    """One fault if batch normalisation without skips bears an exploding gradient."""
    if not trace.where("node", batch_statistics=True):
        raise NotApplicable("no normalisation uses the statistics of the batch")
    found = _depth.blame(__name__, trace, limit)
    if found is None:
        return []
    factor = math.exp(found.log_ratio / found.steps)
    targets = _places.label(trace, found.culprits)
    return _depth.report(
        trace,
        found,
        cause=f"{_depth.describe(found)}: BatchNorm without skip connections multiplies it by "
        f"{factor:.2f} a layer",
        evidence=(Evidence("gain a layer", factor, limit="1 (theory for ReLU under BatchNorm: 1.21)"),),
        remedies=(
            Remedy("add-skips", targets, "an identity path past each pair of layers carries the gradient"),
            Remedy(
                "swap-normalisation",
                targets,
                "LayerNorm does not couple the samples",
                parameters={"to": "layer_norm"},
            ),
            Remedy("reinitialise", targets, "without BatchNorm, start at the critical point"),
        ),
    )


def sick() -> Case:
    """Forty plain layers with BatchNorm."""
    return _case(40, skip=False)


def healthy() -> Case:
    """Forty layers with BatchNorm, a skip around each."""
    return _case(40, skip=True)


def _case(depth: int, skip: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Block(nn.Module):
        """relu(norm(W x)), or x + norm(W relu(x))."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64)

        def forward(self, x: Tensor) -> Tensor:
            if skip:
                y: Tensor = self.layer(torch.relu(self.norm(x)))
                return x + y
            return torch.relu(self.norm(self.layer(x)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(*[Block() for _ in range(depth)], nn.Linear(64, 10))
        return Case(
            net,
            (torch.randn(64, 64), torch.randint(0, 10, (64,))),
            nn.CrossEntropyLoss(),
            story=f"{depth} layers under BatchNorm",
        )
