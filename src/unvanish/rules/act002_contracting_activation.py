"""The activation's slope itself is too small, without saturation, so every layer shrinks the
gradient.

Why it harms

A sigmoid's slope is at most 1/4 and a hard sigmoid's 1/6, for any input. A layer multiplies the
gradient by

    sqrt(||W||_F^2 / n_out) * sqrt(<phi'^2>),   <phi'^2> <= 1/16 for a sigmoid

and weights of unit gain cannot make up for it. Forward, the samples become alike at the same pace,
so deep layers have nothing left to learn from.

An example

    blocks = [nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(20)]
    for block in blocks:
        nn.init.xavier_normal_(block[0].weight)          # keeps 1/4 a layer: 1e-12 in all

How it is measured

Theil-Sen slope of ln ||d|| over the layers, times their number: beyond `limit` it is a warning,
beyond twice that an error. The rule fires if the activations that contract cost more than one nat
each on average (ln sqrt(<phi'^2>)), bear half of the loss and more than the weights, and are not
saturated; not every layer needs to have one. In a row of parallel layers that such activations
join, as in sigmoid(v) * sigmoid(g), the weights bear their part and the activations the rest.

Limits

    limit = 3   nats over the depth: up to 3 a net trains, from 5.4 to 6.6 in part, beyond 10 not
                (measured, SGD and Adam; Schoenholz et al. 2017: a depth of 6 depth scales)

Remedies

Swap the activation for ReLU, GELU or tanh with a matching initialisation (retrain). A sigmoid can
become a tanh exactly, with the weights before and after halved (exact). Insert a normalisation
(retrain). Add skip connections (retrain). Where a product scales the signal by a small constant,
take a factor near one (advice).

When it is wrong

Gates of a residual stream are not judged. A single softmax on the way makes a distribution of
latent classes, and is a note unless the loss is an error. A sigmoid as the output is judged by the
output rules.

References: Hochreiter 1991; Bengio et al. 1994; Glorot and Bengio 2010; Schoenholz et al.
2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.causes import is_steep
from unvanish.core.diagnosis import Case, Evidence, Remedy
from unvanish.core.limits import CONTRACTING, SATURATED
from unvanish.core.trace import Trace
from unvanish.rules import _depth, _places
from unvanish.rules._fault import Fault

NEEDS = ("static", "step")
EXPLAINS = ("DEP001", "INI001")
SCALING = {"mul", "div"}


def check(trace: Trace, *, limit: float = 3.0) -> Iterable[Fault]:
    """One fault if the slope of unsaturated activations bears a vanishing gradient."""
    found = _depth.blame(__name__, trace, limit)
    if found is None:
        return []
    kinds = sorted({trace.sites[i].kind for i in found.culprits})
    slopes = [e.shares["slope"] for e in found.entries if is_steep(e)]
    kept = math.exp(sum(slopes) / len(slopes))
    where = "a layer" if len(slopes) == found.steps else f"at each of {len(slopes)} places"
    targets = _places.label(trace, found.culprits)
    scaled, who = set(kinds) <= SCALING, " and ".join(kinds)
    how = f"{who} scales it by {kept:.2g} {where}" if scaled else f"{who} keeps {kept:.3f} of it {where}"
    return _depth.report(
        trace,
        found,
        cause=f"{_depth.describe(found)} because {how}{'' if scaled else ', unsaturated'}",
        evidence=(
            Evidence("rms slope", kept, limit=f"> {math.exp(CONTRACTING):.2f}"),
            Evidence(
                "saturated units, at most",
                _largest_share(trace, found.culprits),
                limit=f"< {SATURATED:g}",
            ),
        ),
        remedies=(
            *(_drop_factor(targets) if scaled else _swap(targets)),
            Remedy("insert-normalisation", targets, "a normalisation restores the scale after each layer"),
            Remedy("add-skips", targets, "an identity path carries the gradient past the layers"),
        ),
        usual=kinds == ["softmax"] and len(slopes) == 1,
    )


def _drop_factor(targets: tuple[str, ...]) -> tuple[Remedy, ...]:
    """What helps where a product scales the signal."""
    why = "a factor near one, or none: small outputs come from small weights in the last layer"
    return (Remedy("drop-factor", targets, why, safety="advice"),)


def _swap(targets: tuple[str, ...]) -> tuple[Remedy, ...]:
    """What helps where an activation has a small slope."""
    return (
        Remedy(
            "swap-activation", targets, "ReLU, GELU or tanh have a slope near one", parameters={"to": "relu"}
        ),
        Remedy("centre-sigmoid", targets, "the sigmoids stay, and start exactly as a critical tanh net does"),
    )


def _largest_share(trace: Trace, sites: Iterable[int]) -> float:
    """The largest share of saturated units at these sites; NaN if none was measured."""
    shares = (trace.value(i, "saturated") for i in sites)
    return max((s for s in shares if math.isfinite(s)), default=math.nan)


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
