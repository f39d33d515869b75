"""phi'(z) of every activation, read from its node of the graph: the node, given ones, returns its slope."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unvanish.probes import families
from unvanish.probes.forward import Operation
from unvanish.probes.measures import slope_stats


def read(operation: Operation) -> dict[str, float]:
    """`slope_sq`, `saturated` and `dead` of an activation; {} where its node is no function of one tensor.

    Call it without gradients: it runs the node.
    """
    slope = _slope(operation)
    if slope is None:
        return {}
    return slope_stats(slope, families.SQUASHING.get(operation.kind))


@torch.no_grad()
def mean(operation: Operation) -> float:
    """The mean |phi'(z)| of an activation; NaN where it cannot be read."""
    slope = _slope(operation)
    return math.nan if slope is None else float(slope.abs().mean(dtype=torch.float64))


def _slope(operation: Operation) -> Tensor | None:
    node: Any = operation.nodes[0]
    if len([b for b, _ in node.next_functions if b is not None]) != 1 and operation.kind != "prelu":
        return None
    ones = _ones(node)
    back: Callable[[Tensor], Any] = node
    try:
        found = back(ones)
    except RuntimeError:  # what it saved was written over: the backward will say so, and name the module
        return None
    found = found[0] if isinstance(found, tuple) else found
    return found if isinstance(found, Tensor) and found.shape == ones.shape else None


def _ones(node: Any) -> Tensor:
    entry = node._input_metadata[0]
    return torch.ones(tuple(entry.shape), dtype=entry.dtype, device=entry.device)
