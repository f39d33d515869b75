"""A dropout drops nearly everything: what is left is a handful of units, scaled up.

Why it harms

Dropping a share p and dividing by 1 - p keeps the mean and multiplies the noise: the variance
that dropout adds is p / (1 - p) of the signal's power, 19 times at p = 0.95. PyTorch's p is the
share that is dropped; in some other libraries it was the share that is kept.

An example

    nn.Dropout(0.95)         # meant to keep 95 %

How it is measured

The probability of every dropout that is active in this forward is read off its call. The
examination itself drops nothing.

Limits

    limit = 0.9    of the values: published networks drop at most 0.8, and at 0.9 the noise is nine
                   times the signal

Remedies

Set p to 1 - p, or to 0.1 to 0.5 (retrain).

When it is wrong

Very wide inputs of which a sample of tokens is enough, such as masked autoencoders, which do not
use dropout for it.

References: Srivastava et al. 2014.
"""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import SLOW

NEEDS = ("static",)


def check(trace: Trace, *, limit: float = 0.9) -> Iterable[Fault]:
    """One fault naming the dropouts beyond the limit."""
    dropouts = trace.facts.get("dropouts", {})
    if not dropouts:
        raise NotApplicable("no dropout is active")
    heavy = sorted((p for p in dropouts if dropouts[p] >= limit), key=lambda p: -dropouts[p])
    if not heavy:
        return []
    names = tuple(path or "(model)" for path in heavy)
    worst = dropouts[heavy[0]]
    return [
        Fault(
            severity="error" if worst == 1 else "warning",
            cause=f"the dropout in {names[0]} drops {worst:.0%} of the values: "
            + (
                "nothing passes" if worst == 1 else f"its noise is {worst / (1 - worst):.3g} times the signal"
            ),
            sites=names[: _places.MOST],
            evidence=(Evidence("share that is dropped", worst, limit=f"< {limit:g}", site=names[0]),),
            remedies=(
                Remedy(
                    "drop-less",
                    names[: _places.MOST],
                    "p is the share that is dropped: set 1 - p if it should be kept; 0.1 to 0.5 are usual",
                ),
            ),
            direction="blocked" if worst == 1 else "none",
            tier=SLOW,
            size=worst,
        )
    ]


def sick() -> Case:
    """A dropout of 0.95."""
    return _case(share=0.95)


def healthy() -> Case:
    """A dropout of 0.5."""
    return _case(share=0.5)


def _case(share: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(share), nn.Linear(32, 4))
        return Case(
            net,
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="a dropout",
        )
