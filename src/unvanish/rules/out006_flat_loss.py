"""The loss itself is flat where the model stands: it is far from its least, and gives almost no slope.

Why it harms

A generator that lowers the chance of being found out,

    loss = log(1 - D),  dL/dz = -D -> 0 as D -> 0

learns least where it is worst: a discriminator that is sure of every fake passes almost nothing
back. Raising the chance to pass, -log D, has a slope of 1 there.

An example

    loss = torch.log(1 - discriminator(fake)).mean()                             # flat
    loss = -nn.functional.binary_cross_entropy_with_logits(z, torch.zeros_like(z))    # the same
    loss = nn.functional.binary_cross_entropy_with_logits(z, torch.ones_like(z))      # not flat

How it is measured

Logarithms of probabilities, and cross-entropies against targets that the loss makes itself, which
are to be made worse. Their mean slope, 1 - p for a logarithm of p, is below `limit`; an error far
below it. And labels that are smoothed until the right answer has less than `smoothed` more than
another.

Limits

    limit = 0.05     of the largest slope: a discriminator that gives fakes 5 %. At the start it
                     gives a half
    smoothed = 0.25  of the whole that the right answer has more than another: smoothing is 0.1 as a
                     rule, and 0.6 at most against noisy labels
    FLATTER = 5      times flatter than the limit is an error
    LEAST = 1e-12    is the least slope that counts: an order, no limit

Remedies

Raise the likelihood of the other answer instead of lowering that of this one (retrain). Train the
discriminator less, smooth its labels, or use a loss without saturation (advice).

When it is wrong

A loss that is flat because it has reached its aim has no such sign, and is not reported.

References: Goodfellow et al. 2014, section 3; Arjovsky and Bottou 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import OUTPUT

NEEDS = ("static", "step")
EXPLAINS = ("GRF004", "INI001", "OUT001", "PRC001", "ACT001")
FLATTER = 5
LEAST = 1e-12


def check(trace: Trace, *, limit: float = 0.05, smoothed: float = 0.25) -> Iterable[Fault]:
    """One fault if a likelihood that is to be lowered is as good as one, or labels leave no answer much."""
    if not trace.where("output"):
        raise NotApplicable("no loss was seen")
    flat = [f for f in trace.facts.get("ascents", []) if not f["given"] and f["slope"] < limit]
    if not flat:
        return _find_smoothed(trace, smoothed)
    worst = min(flat, key=lambda f: f["slope"])
    slope, what = worst["slope"], worst["kind"]
    what += f" at {worst['source']}" if worst["source"] else ""
    return [
        Fault(
            severity="error" if slope < limit / FLATTER else "warning",
            cause=f"the loss is flat where the model stands: it lowers a likelihood ({what}), "
            f"whose slope is {slope:.1e} of its largest, and least where the model is worst",
            sites=("loss",),
            evidence=(Evidence("slope of the loss, relative", slope, limit=f"> {limit:g}", site="loss"),),
            remedies=(
                Remedy(
                    "raise-other-likelihood", ("loss",), "-log D(G(z)) has its full slope there", "advice"
                ),
                Remedy("calm-discriminator", ("loss",), "or smooth its labels, train it less", "advice"),
            ),
            direction="vanishing",
            tier=OUTPUT,
            size=-math.log(max(slope, LEAST)),
        )
    ]


def _find_smoothed(trace: Trace, limit: float) -> list[Fault]:
    """One fault if labels are smoothed until the best answer is hardly better than none."""
    wishes = [w for w in trace.facts.get("wishes", []) if w["how"] == "smoothed" and w["share"] < limit]
    if not wishes:
        return []
    share, place = wishes[0]["share"], wishes[0]["source"]
    return [
        Fault(
            severity="warning",
            cause=f"the loss is flat: its labels are smoothed{' at ' + place if place else ''} until the "
            f"right answer is asked for by only {share:.2g} of 1 more than another",
            sites=("loss",),
            evidence=(Evidence("right answer less another", share, limit=f"> {limit:g}", site="loss"),),
            remedies=(Remedy("less-smoothing", ("loss",), "0.1 is usual, and leaves 0.9", "advice"),),
            direction="vanishing",
            tier=OUTPUT,
        )
    ]


def sick() -> Case:
    """A generator that minimises log(1 - D), before a discriminator that is sure."""
    return _case(saturating=True)


def healthy() -> Case:
    """The same discriminator, and a generator that maximises log D."""
    return _case(saturating=False)


def _case(saturating: bool) -> Case:
    import torch
    from torch import nn
    from torch.nn import functional

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        judge: Any = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
        nn.init.constant_(judge[2].bias, -9.0)

        def loss(fake: Any, real: Any) -> Any:
            z = judge(fake)
            return torch.log(1 - torch.sigmoid(z)).mean() if saturating else functional.softplus(-z).mean()

        batch = torch.randn(64, 8), torch.randn(64, 4)
        return Case(net, batch, loss, story="a generator before a discriminator that is sure")
