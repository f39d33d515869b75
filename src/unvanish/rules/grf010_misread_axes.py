"""A view gives the axes of a sample another order without moving its numbers: no transpose.

Why it harms

A view keeps the numbers in their order and cuts them elsewhere. Of two tokens of three features

    [[a1, a2, a3], [b1, b2, b3]]  viewed as (3, 2) is  [[a1, a2], [a3, b1], [b2, b3]]

and no row of it is a feature over time. The shapes fit, the gradient flows, the loss falls a
little, and what comes after reads rows that mix tokens, channels and places, in another way for
each length.

An example

    h = conv(x)                                  # (batch, channels, time)
    out, _ = gru(h.view(len(x), -1, channels))   # h.transpose(1, 2)
    q = q.view(b, heads, t, d)      # (b, t, heads * d): view(b, t, heads, d).transpose(1, 2)

How it is measured

On views of activations in the forward, by their shapes: (p, q) as (q, p); (p, h * d) as (h, p, d),
and (h, p, d) as (p, h * d), also of heads that were joined with the samples; maps with channels
first as rows of as many numbers as channels; pictures with their channels at one end as ones with
them at the other. Left alone are views behind a padding, a slice or a concatenation, by which rows
are moved against each other on purpose (relative positions), axes whose lengths differ by one, axes
of length one, and whatever joins samples, which LEA001 judges.

Limits

None: the order of the axes is kept or not. Axes of equal length cannot be told apart.

Remedies

`transpose` or `permute`; for heads first split the features, then transpose (retrain, advice).

When it is wrong

Numbers whose order means nothing yet, as those of one linear layer that is cut into a table: no
order of a table can be lost there, and only another one is chosen.

References: the documentation of torch.Tensor.view and torch.permute.
"""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.loss_facts import SwapFacts
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import DATA

NEEDS = ("static",)


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming the first such view."""
    if not trace.where("parameter", reachable=True):
        raise NotApplicable("the loss reaches no parameter")
    swaps = trace.facts.get("swaps", [])
    return [_report(swaps)] if swaps else []


def _report(swaps: list[SwapFacts]) -> Fault:
    first = swaps[0]
    where, line = first["path"] or "(model)", f" ({first['line']})" if first["line"] else ""
    before, after = first["shapes"]
    paths = tuple(dict.fromkeys(swap["path"] or "(model)" for swap in swaps))[: _places.MOST]
    return Fault(
        severity="warning",
        cause=f"a view in {where}{line} makes {after} of {before}: it gives the axes another order and "
        "leaves the numbers where they are, so each row is made of pieces of several",
        sites=paths,
        evidence=(
            Evidence("shape before and after", f"{before} to {after}", site=where),
            Evidence("such views", len(swaps), limit="0"),
        ),
        remedies=(
            Remedy("transpose-axes", paths, "transpose or permute in place of the view", safety="advice"),
        ),
        direction="none",
        tier=DATA,
    )


def sick() -> Case:
    """The channels of a convolution viewed as steps of a sequence."""
    return _case(viewed=True)


def healthy() -> Case:
    """The same, transposed."""
    return _case(viewed=False)


def _case(viewed: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Tagger(nn.Module):
        """A convolution over time, and a layer for each step."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv1d(8, 16, 3, padding=1), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.conv(x))
            h = h.reshape(len(x), -1, 16) if viewed else h.transpose(1, 2)
            out: Tensor = self.last(h).mean(1)
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batch = torch.randn(16, 8, 12), torch.randint(0, 4, (16,))
        return Case(Tagger(), batch, nn.CrossEntropyLoss(), story="tagged steps")
