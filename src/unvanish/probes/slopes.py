"""phi'(z) of every activation, from its node of the graph: called with ones, the node returns the slope.

Notable: that of a ReLU is read off its result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from unvanish.core.omissions import Omissions
from unvanish.probes import operations
from unvanish.probes.events import Operation
from unvanish.probes.measures import rectifier_stats, slope_stats
from unvanish.probes.saved import find_saved, is_gone

LARGE = 1 << 18  # elements that are read together


@torch.no_grad()
def read(activations: Iterable[Operation], omissions: Omissions) -> None:
    """Add `slope_sq`, `saturated` and `dead` to activations whose node is a function of one tensor.

    Small ones of the same shape are read together.
    """
    waiting: dict[Any, list[tuple[Operation, Tensor]]] = {}
    ones: dict[Any, Tensor] = {}

    def settle(pile: list[tuple[Operation, Tensor]], peak: float | None) -> None:
        place = pile[0][0].caller.path
        omissions.attempt("slopes", place, lambda: _read(pile, peak), lambda: None)

    for operation in activations:
        try:
            slope = _find_off(operation)
            slope = _slope(operation, ones) if slope is None else slope
        except Exception as error:
            omissions.note("the slope", operation.caller.path, error)
            continue
        if slope is None:
            continue
        key = (slope.shape, slope.dtype, slope.device, operations.SQUASHING.get(operation.kind))
        pile = waiting.setdefault(key, [])
        pile.append((operation, slope))
        if len(pile) * slope.numel() > LARGE:
            settle(waiting.pop(key), key[-1])
    for key, pile in waiting.items():
        settle(pile, key[-1])


def _read(pile: list[tuple[Operation, Tensor]], peak: float | None) -> None:
    slopes = torch.stack([slope for _, slope in pile]) if len(pile) > 1 else pile[0][1][None]
    found = rectifier_stats(slopes) if slopes.dtype is torch.bool else slope_stats(slopes, peak)
    for (operation, _), stats in zip(pile, found, strict=True):
        operation.stats.update(stats)


@torch.no_grad()
def mean(operation: Operation) -> float:
    """The mean |phi'(z)| of an activation; NaN if it cannot be read."""
    slope = _slope(operation)
    return math.nan if slope is None else float(slope.abs().mean(dtype=torch.float64))


def _find_off(operation: Operation) -> Tensor | None:
    """Where a ReLU is off; None if it is none, or if its result was overwritten."""
    node: Any = operation.nodes[0]
    if type(node).__name__ != "ReluBackward0" or node._input_metadata[0].is_nested_tensor:
        return None
    result = find_saved(node, "_saved_result")
    return None if result is None else torch.le(result, 0)


def _slope(operation: Operation, made: dict[Any, Tensor] | None = None) -> Tensor | None:
    """phi'(z); None if the node cannot be called. `made`: ones by shape, which no node writes to."""
    node: Any = operation.nodes[0]
    if len([b for b, _ in node.next_functions if b is not None]) != 1 and operation.kind != "prelu":
        return None
    if node._input_metadata[0].is_nested_tensor:
        return None
    back: Callable[[Tensor], Any] = node
    ones = _ones(node, {} if made is None else made)
    try:
        found = back(ones)
    except RuntimeError as error:  # a saved tensor was overwritten: the backward will report it
        if not is_gone(error):
            raise
        return None
    found = found[0] if isinstance(found, tuple) else found
    return found if isinstance(found, Tensor) and found.shape == ones.shape else None


def _ones(node: Any, made: dict[Any, Tensor]) -> Tensor:
    entry = node._input_metadata[0]
    key = (tuple(entry.shape), entry.dtype, entry.device)
    found = made.get(key)
    if found is None:
        found = torch.ones(key[0], dtype=key[1], device=key[2])
        if found.numel() <= LARGE:
            made[key] = found
    return found
