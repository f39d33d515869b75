"""Targets that are mostly padding, and that the loss counts all the same.

Notable: padding is what ends (or begins) each sample of the targets with one value, as long as the input is
filled there too, within a step. So a label that is only frequent is none.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from unvanish.core.loss_facts import FilledFacts
from unvanish.probes.passes import ForwardPass

LENGTHS = 3  # kinds of lengths, at least: samples that are all cut alike are not padded
SHORT = 4  # steps


@torch.no_grad()
def find_filled(forward: ForwardPass) -> FilledFacts | None:
    """The share of a loss's targets that is padding; None if there is none, or if it is left out."""
    inputs = [x.detach() for x in forward.call.originals.values() if x.ndim >= 2]
    for o in forward.watched.operations:
        if "compared" not in o.handles or o.handles.get("unreduced") or not inputs:
            continue
        for x in inputs:
            if (found := _judge(x, o.handles["compared"][1], o.handles.get("weighing"))) is not None:
                return {**found, "source": forward.watched.loss_calls.lines.get(o.order, "")}
    return None


def _judge(x: Tensor, y: Tensor, weighing: Any) -> FilledFacts | None:
    n = len(x)
    if y.numel() % n or y.numel() // n < SHORT or x.shape[1] < SHORT:
        return None
    whole = not y.is_floating_point()
    rest = 1 if whole else x.shape[2:].numel()
    if y.numel() % (n * rest):
        return None
    steps = y.numel() // (n * rest)
    if steps < SHORT:
        return None
    asked = y.reshape(n, steps, rest)
    for ends in (False, True):
        first, second = (0, 1) if ends else (-1, -2)
        if not _may_be_filled(asked[:, first], asked[:, second], whole):
            continue
        mine, theirs = _count_fill(x.reshape(n, x.shape[1], -1), ends), _count_fill(asked, ends)
        if mine is None or theirs is None:
            continue
        filled = (theirs > 0) | (mine > 0)
        close = bool(((mine - theirs).abs() <= 1).all()) and steps <= x.shape[1]
        if not close or int(torch.unique(theirs[filled]).numel()) < LENGTHS:
            continue
        value = asked[int(theirs.argmax()), 0 if ends else -1, 0]
        if whole and weighing is not None and int(value) == weighing.ignored:
            return None
        share = float(theirs.sum()) / (n * steps)
        return {"share": share, "label": int(value) if whole else None, "source": ""}
    return None


def _may_be_filled(last: Tensor, before: Tensor, whole: bool) -> bool:
    """Whether samples may end in one value: of several lengths one is two, or more; `whole`: labels."""
    if not whole:
        return bool((last == before).any())
    ends = last.flatten().tolist()
    twice = {a for a, b in zip(ends, before.flatten().tolist(), strict=True) if a == b}
    if not twice:
        return False
    counts = Counter(ends)
    return max(counts[value] for value in twice) == max(LENGTHS - 1, *counts.values())


def _count_fill(t: Tensor, begins: bool) -> Tensor | None:
    """How many steps at the end (the beginning) of each sample hold one value, (N,); None if none."""
    t = t if begins else t.flip(1)
    value = t[:, 0].mode(0).values if t.is_floating_point() else t[:, 0, 0].mode().values
    if t.is_floating_point() and bool((value != 0).any()):
        return None
    count = (t == value).all(2).long().cummin(1).values.sum(1)
    return count if bool((count > 0).any()) and bool((count < t.shape[1]).any()) else None
