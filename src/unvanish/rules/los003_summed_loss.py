"""The loss is the sum over the batch and not its mean: a note of what that asks of the rate.

Why it harms

It does not by itself. The gradient of a sum over N samples is N times that of their mean,

    d/dw sum_i L_i = N * d/dw mean_i L_i

so with SGD a rate that was meant for a mean is N times too long, another batch size is another
rate, a clipping norm clips every step, and a weight decay that stands beside the loss hardly acts.

An example

    loss = nn.functional.cross_entropy(z, y, reduction="sum")    # 256 samples
    torch.optim.SGD(net.parameters(), lr=0.1)                    # of a mean: 25.6

How it is measured

In the graph, so the size of the loss has no part in it: the loss is one of torch's with
reduction="sum", or a sum by hand of squares, absolute values or log-likelihoods that the targets
entered, over a whole batch. Terms that are added are in proportion to each other, a quotient by a
tensor (tokens, boxes, a mask) is an average, and a product under the sum weighs its parts: these
are left alone. So is every loss under an optimizer that is given and does not see its size (Adam
and its like). Whether a given optimizer's step really is too long is OPT008's.

Limits

None: a loss is a sum or not. Of fewer than 32 samples a sum is seldom too long, and a constant
factor between 1 / (4 * numbers) and 4 / samples averages: both are left alone.

Remedies

reduction="mean", or the rate divided by the number of samples (advice).

When it is wrong

Never: it is a note and fails no check. A sum is right where the rate was chosen for it.

References: Goyal et al. 2017 (the rate and the batch size).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault, blame_loss
from unvanish.rules._tiers import REMARK

NEEDS = ("static",)


def check(trace: Trace) -> Iterable[Fault]:
    """One note if the loss is a sum over the batch."""
    if not trace.where("output"):
        raise NotApplicable("no loss was seen")
    summed = trace.facts.get("summed")
    if summed is None:
        return []
    samples, place = summed["samples"], f" at {summed['source']}" if summed["source"] else ""
    return [
        blame_loss(
            f"the loss{place} is a sum over {samples} samples, not their mean: its gradient is {samples} "
            "times as long, and a rate meant for a mean must be divided by that",
            Evidence("numbers that are added up", summed["count"], site="loss"),
            Remedy(
                "average-loss", ("loss",), 'reduction="mean", or the rate divided by the samples', "advice"
            ),
            REMARK,
            note=True,
        )
    ]


def sick() -> Case:
    """A cross-entropy summed over 64 samples."""
    return _case("sum")


def healthy() -> Case:
    """Its mean."""
    return _case("mean")


def _case(reduction: str) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
        batch = torch.randn(64, 16), torch.randint(0, 5, (64,))
        return Case(net, batch, nn.CrossEntropyLoss(reduction=reduction), story="a loss over 64 samples")
