"""The weights shrink the gradient layer after layer, or one pinched layer does.

Why it harms

Going back through a layer multiplies the gradient's norm by

    ||d_(l-1)|| / ||d_l|| = sqrt(||W||_F^2 / n_out) * sqrt(<phi'^2>) * alignment

and a factor below one, taken to the power of the depth, leaves the early layers without a gradient.
PyTorch's default initialisation of Linear and Conv has Var W = 1/(3 n_in): .58 a layer from the
weights alone, .41 with a ReLU. The gradient of the parameters often hides it, because the
activations shrink too.

An example

    layers = [part for _ in range(30) for part in (nn.Linear(64, 64), nn.ReLU())]
    net = nn.Sequential(*layers)             # the default initialisation: 12 decades are lost

How it is measured

ln of the gradient at the layers' outputs, Theil-Sen slope over the layers, times their number:
beyond `limit` it is a warning, beyond twice that an error. The loss is split into weights,
activation slope and alignment; this rule fires if the weights bear it. A single layer far below the
others is found by the ratio of the endpoints.

Limits

    limit = 3   nats over the depth: up to 3 a net trains, from 5.4 to 6.6 in part, beyond 10 not
                (measured, SGD and Adam; Schoenholz et al. 2017: a depth of 6 depth scales)

Remedies

Re-initialise to a gain of one for the activation (retrain): He for ReLU, gain 5/3 or the critical
point for tanh. Insert a normalisation (retrain). Add skip connections (retrain).

When it is wrong

A trained net may hold small weights on purpose, for example under strong weight decay with
normalisation in between; the rule counts a normalised layer's weights together with its
normalisation.

References: Glorot and Bengio 2010; He et al. 2015; Schoenholz et al. 2017; Hanin and Nica
2020.
"""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _depth
from unvanish.rules._fault import Fault

NEEDS = ("static", "step")
EXPLAINS = ("DEP001", "ATT002", "INI003")


def check(trace: Trace, *, limit: float = 3.0) -> Iterable[Fault]:
    """One fault if the weights bear a vanishing gradient."""
    return _depth.judge_weights(
        __name__,
        trace,
        limit,
        size="too small",
        than="smaller",
        effect="they keep {:.2f} of it",
        last=Remedy("add-skips", (), "an identity path carries the gradient past the layers"),
    )


def sick() -> Case:
    """PyTorch's default initialisation, thirty layers deep."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [part for _ in range(30) for part in (nn.Linear(64, 64), nn.ReLU())]
        batch = torch.randn(32, 64), torch.randint(0, 10, (32,))
        return Case(
            nn.Sequential(*layers, nn.Linear(64, 10)),
            batch,
            nn.CrossEntropyLoss(),
            story="30 ReLU layers, default init",
        )


def healthy() -> Case:
    """The same default, but a LayerNorm after each layer: the scale of the weights no longer matters."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [part for _ in range(12) for part in (nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU())]
        batch = torch.randn(32, 64), torch.randint(0, 10, (32,))
        return Case(
            nn.Sequential(*layers, nn.Linear(64, 10)),
            batch,
            nn.CrossEntropyLoss(),
            story="default init under LayerNorm",
        )
