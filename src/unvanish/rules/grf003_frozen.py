"""Parameters frozen on purpose: a note of how much of the model does not learn.

Why it harms

It does not. Freezing is how fine-tuning and adapters work; the note says how much is frozen, so
that nobody is surprised by it.

An example

    model.backbone.requires_grad_(False)     # no gradient, no step

How it is measured

The share of the model's numbers whose requires_grad is False.

Limits

    limit = 0.0001   of the numbers: less is a constant that is kept as a parameter, such as the
                     bins of a detector's distances (16 numbers of 2.6 million in YOLO11n)

Remedies

None needed. To train a part, set its requires_grad to True (advice).

When it is wrong

Never: it is a note and fails no check.

References: The PyTorch documentation, autograd mechanics.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import MEASURED

NEEDS = ("static",)


def check(trace: Trace, *, limit: float = 1e-4) -> Iterable[Fault]:
    """One note with the frozen share."""
    everything = trace.where("parameter")
    if not everything:
        raise NotApplicable("the model has no parameters")
    frozen = [i for i in everything if not trace.sites[i].facts.get("trainable", True)]
    count = _places.count_numbers(trace, frozen)
    share = count / max(1, _places.count_numbers(trace, everything))
    if not frozen or share < limit:
        return []
    return [
        Fault(
            severity="note",
            cause=f"{share:.1%} of the model is frozen: {len(frozen)} of {len(everything)} parameters have "
            "requires_grad=False",
            sites=tuple(trace.sites[i].label for i in frozen)[: _places.MOST],
            evidence=(Evidence("frozen share", share), Evidence("frozen numbers", count)),
            remedies=(),
            direction="none",
            tier=MEASURED,
        )
    ]


def sick() -> Case:
    """A frozen encoder under a trained head."""
    return _case(freeze=True)


def healthy() -> Case:
    """Nothing is frozen."""
    return _case(freeze=False)


def _case(freeze: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        net[0].requires_grad_(not freeze)
        return Case(
            net,
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="a frozen encoder",
        )
