"""The weights of a sum do not add up to one: their softmax runs along another axis than the sum.

Why it harms

An attention is a weighted mean of the values. Along the wrong axis the softmax shares one among
the queries, the heads or the batch, and what a query gets is no mean: many queries get next to
nothing, some several times too much, and a token competes with tokens that have nothing to do with
it.

    sum_j a[i, j] = 1   for every query i, where j runs over the keys

An example

    a = torch.softmax(scores, dim=1)           # (batch, heads, queries, keys): over the heads
    out = a @ v                                # sums over the keys: dim=-1

How it is measured

A softmax, or an exponential divided by its own sum, whose scores are the product of two things that
the model computed is followed through
views and transpositions to the next matrix product or einsum. Its axis is not the one that is
summed over there.

Limits

None: the axes are the same or not.

Remedies

Give the softmax the axis of the keys, or transpose its result (advice).

When it is wrong

Where queries compete for a token on purpose, without a division by their sum afterwards (with one
it is left alone, as in slot attention), or where all of a token is to be handed out, as in routing.

References: Bahdanau et al. 2015; Vaswani et al. 2017; Locatello et al. 2020 (queries that compete).
"""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.loss_facts import SoftmaxFacts
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import LOGITS

NEEDS = ("static",)
EXPLAINS = ("ATT001", "ATT002", "DEP003", "GRF007")


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming the first softmax along the wrong axis."""
    if not trace.where("parameter", trainable=True):
        raise NotApplicable("no parameter is trainable")
    misplaced = trace.facts.get("misplaced", [])
    return [_report(misplaced)] if misplaced else []


def _report(misplaced: list[SoftmaxFacts]) -> Fault:
    first = misplaced[0]
    where, line = first["path"] or "(model)", f" ({first['line']})" if first["line"] else ""
    axis = f"axis {first['axis']} of {first['axes']}"
    return Fault(
        severity="warning",
        cause=f"the softmax in {where}{line} runs over {axis}, but the sum that it weighs along another: "
        "the weights of a query do not add up to one",
        sites=(where,),
        evidence=(
            Evidence("axis of the softmax", axis, limit="the one that is summed over", site=where),
            Evidence("such softmaxes", len(misplaced), limit="0"),
        ),
        remedies=(
            Remedy("set-softmax-axis", (where,), "set its dim to the axis of the keys, say dim=-1", "advice"),
        ),
        direction="none",
        tier=LOGITS,
    )


def sick() -> Case:
    """An attention by hand whose softmax runs over the queries."""
    return _case(axis=-2)


def healthy() -> Case:
    """The same over the keys."""
    return _case(axis=-1)


def _case(axis: int) -> Case:
    import torch
    from torch import Tensor, nn

    class Attentive(nn.Module):
        """One head of attention and a mean of its tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
            self.last = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.q(x) @ self.k(x).transpose(1, 2) / 4
            mixed = torch.softmax(scores, dim=axis) @ self.v(x)
            out: Tensor = self.last((x + mixed).mean(1))
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batch = torch.randn(8, 6, 16), torch.randint(0, 4, (8,))
        return Case(Attentive(), batch, nn.CrossEntropyLoss(), story="attention by hand")
