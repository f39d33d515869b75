"""The weights multiply the gradient layer after layer, or one oversized layer does.

Why it harms

The mirror image of weights that are too small:

    ||d_(l-1)|| / ||d_l|| = sqrt(||W||_F^2 / n_out) * sqrt(<phi'^2>) * alignment > 1

so the early layers take steps that are too long by decades, activations and logits blow up, and
float16 overflows. One learning rate cannot serve both ends.

An example

    for layer in layers:                     # twice He's deviation: 2**20 over 20 layers
        nn.init.normal_(layer.weight, std=2 * (2 / 64) ** 0.5)

How it is measured

As for weights that are too small: Theil-Sen slope of ln ||d|| over the layers, times their number;
beyond `limit` it is a warning, beyond twice that an error. The rule fires if neither batch
normalisation nor unscaled residual branches bear the growth.

Limits

    limit = 3   nats over the depth: up to 3 a net trains, from 5.4 to 6.6 in part, beyond 10 not
                (measured, SGD and Adam; the threshold is the same for growth and for loss)

Remedies

Re-initialise to a gain of one (retrain). Insert a normalisation (retrain). Clip the gradient by its
norm (advice: it bounds the step but does not even out the layers).

When it is wrong

With saturating units large weights may leave the gradient as it is; then nothing is reported here.

References: Pascanu et al. 2013; He et al. 2015; Schoenholz et al. 2017.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _depth
from unvanish.rules._fault import Fault

NEEDS = ("static", "step")
EXPLAINS = ("NUM001", "OUT003", "PRC002")


def check(trace: Trace, *, limit: float = 3.0) -> Iterable[Fault]:
    """One fault if the weights bear an exploding gradient."""
    why = "bounds the step, though not the ratio between the layers"
    return _depth.judge_weights(
        __name__,
        trace,
        limit,
        size="too large",
        than="larger",
        effect="a factor of {:.2f}",
        last=Remedy("clip-gradient", (), why, safety="advice"),
    )


def sick() -> Case:
    """Weights twice as large as He's."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[Any] = []
        for _ in range(20):
            layers += [nn.Linear(64, 64), nn.ReLU()]
            nn.init.normal_(layers[-2].weight, std=2 * (2 / 64) ** 0.5)
        batch = torch.randn(32, 64), torch.randn(32, 1)
        return Case(nn.Sequential(*layers, nn.Linear(64, 1)), batch, nn.MSELoss(), story="twice He's weights")


def healthy() -> Case:
    """Weights ten times too large under LayerNorm: no gradient grows."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[Any] = []
        for _ in range(12):
            layers += [nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU()]
            nn.init.normal_(layers[-3].weight, std=10 * 64**-0.5)
        batch = torch.randn(32, 64), torch.randint(0, 10, (32,))
        return Case(
            nn.Sequential(*layers, nn.Linear(64, 10)),
            batch,
            nn.CrossEntropyLoss(),
            story="large weights, normalised",
        )
