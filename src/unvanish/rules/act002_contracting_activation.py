"""The activation's slope itself is too small, without saturation, so every layer shrinks the
gradient.

Why it harms

A sigmoid's slope is at most 1/4 and a hard sigmoid's 1/6, wherever its input lies. Whatever the
weights, a layer multiplies the gradient by

    sqrt(||W||_F^2 / n_out) * sqrt(<phi'^2>),   <phi'^2> <= 1/16 for a sigmoid

and weights of unit gain cannot make up for it. Forward, the samples become alike at the same pace,
so deep down there is nothing left to learn from.

How it is measured

Theil-Sen slope of ln ||d|| over the layers, times their number; `limit` nats (default 3, or what
chance allows) is a warning, twice that an error. The rule fires where the activations that
contract, whether every layer has one or not, cost more than one nat each on the average
(ln sqrt(<phi'^2>)), bear half of the loss and more than the weights, and the units are not
saturated. A row of parallel layers that such activations join, as in sigmoid(v) * sigmoid(g), gives
its weights' part to them and the rest to the activations.

Remedies

Swap the activation for ReLU, GELU or tanh with a matching initialisation (retrain). A sigmoid can
become a tanh exactly, with the weights before and after halved (exact). Insert a normalisation
(retrain). Add skip connections (retrain).

When it is wrong

Gates beside a residual stream are not judged. A sigmoid as the output is judged by the output
rules.

References: Hochreiter 1991; Bengio et al. 1994; Glorot and Bengio 2010; Schoenholz et al.
2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core import causes
from unvanish.core.diagnosis import Case, Evidence, Finding, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _depth

NEEDS = ("static", "step")
EXPLAINS = ("DEP001", "INI001")


def check(trace: Trace, *, limit: float = 3.0) -> Iterable[Finding]:
    """One finding where the slope of unsaturated activations bears a vanishing gradient."""
    found = _depth.reading(trace, limit)
    if found.cause != "ACT002":
        return []
    kinds = sorted({trace.sites[i].kind for i in found.culprits})
    parts = [e.shares["slope"] for e in found.entries if causes.is_steep(e)]
    kept = math.exp(sum(parts) / len(parts))
    where = "a layer" if len(parts) == found.steps else f"at each of {len(parts)} places"
    saturated = [trace.value(i, "saturated") for i in found.culprits]
    share = max((s for s in saturated if math.isfinite(s)), default=math.nan)
    cause = f"{_depth.said(found)} because {' and '.join(kinds)} keeps {kept:.3f} of it {where}, unsaturated"
    more = (
        Evidence("rms slope", kept, "", "> 0.37"),
        Evidence("saturated units, at most", share, "", "< 0.5"),
    )
    targets = _depth.labels(trace, found.culprits)
    remedies = (
        Remedy(
            "swap-activation", targets, "ReLU, GELU or tanh have a slope near one", "retrain", {"to": "relu"}
        ),
        Remedy(
            "centre-sigmoid",
            targets,
            "the sigmoids stay, and start exactly as a critical tanh net does",
        ),
        Remedy("insert-normalisation", targets, "a normalisation restores the scale after each layer"),
        Remedy("add-skips", targets, "an identity path carries the gradient past the layers"),
    )
    return _depth.finding(trace, "ACT002", "contracting-activation", found, cause, more, remedies)


def sick() -> Case:
    """Twenty sigmoid layers with Xavier weights."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[Any] = []
        for _ in range(20):
            layers += [nn.Linear(64, 64), nn.Sigmoid()]
            nn.init.xavier_normal_(layers[-2].weight)
        batch = torch.randn(32, 64), torch.randint(0, 10, (32,))
        return Case(
            nn.Sequential(*layers, nn.Linear(64, 10)), batch, nn.CrossEntropyLoss(), story="20 sigmoid layers"
        )


def healthy() -> Case:
    """Sigmoids as gates beside the stream, sixteen blocks deep."""
    import torch
    from torch import Tensor, nn

    class Gated(nn.Module):
        """x + linear(x) * sigmoid(gate(x)) / 4."""

        def __init__(self) -> None:
            super().__init__()
            self.value, self.gate = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            value: Tensor = self.value(x)
            return x + value * torch.sigmoid(self.gate(x)) / 4

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(*[Gated() for _ in range(16)], nn.LayerNorm(64), nn.Linear(64, 10))
        return Case(
            net,
            (torch.randn(32, 64), torch.randint(0, 10, (32,))),
            nn.CrossEntropyLoss(),
            story="16 gated blocks",
        )
