"""Output and targets that are flattened from another order of their axes, so no row meets its own answer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unvanish.core.loss_facts import SwapFacts
from unvanish.probes import operations
from unvanish.probes.events import OperationCall
from unvanish.probes.graph import Graph
from unvanish.probes.loss_calls import LossCalls

VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0")
STEPS = 4  # views in a row, at most
LEAST = 2  # axes of the targets


def find_misaligned(calls: LossCalls, graph: Graph | None) -> list[SwapFacts]:
    """The losses of torch's own that read both flattened, with the shapes before it."""
    found: list[SwapFacts] = []
    for call, operation in calls.made if graph is not None else ():
        if operation.kind in operations.LOSSES and graph and operation.nodes[0] in graph.index:
            shapes = _read_shapes(call, calls)
            if shapes is not None and is_misaligned(*shapes):
                line = calls.lines.get(operation.order, "")
                found.append({"path": "the loss", "line": line, "shapes": shapes})
    return found


def is_misaligned(output: tuple[int, ...], targets: tuple[int, ...]) -> bool:
    """Whether the same axes, of different lengths, stand in another order."""
    ours, theirs = ([n for n in shape if n > 1] for shape in (output, targets))
    return len(theirs) >= LEAST and ours != theirs and sorted(ours) == sorted(theirs)


def _read_shapes(call: OperationCall, calls: LossCalls) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The shapes of output and targets before they were flattened, without the axis of the classes."""
    x, y = call.arguments.get("input"), call.arguments.get("target")
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or not 1 <= y.ndim <= x.ndim <= y.ndim + 1:
        return None
    source = next((t for t in calls.originals if _is_flattened(t, y)), None)
    shape = _find_before(x)
    if source is None or shape is None:
        return None
    ours = shape[:-1] if x.ndim == y.ndim + 1 else shape
    return ours, tuple(source.shape)


def _is_flattened(source: Tensor, y: Tensor) -> bool:
    """Whether targets are those of the batch, with fewer axes and in the same order in memory."""
    if source.ndim <= y.ndim or source.numel() != y.numel() or not source.is_contiguous():
        return False
    return y.is_contiguous() and source.data_ptr() == y.data_ptr()


def _find_before(x: Tensor) -> tuple[int, ...] | None:
    """The shape of a tensor before it was flattened; None if it was not."""
    node: Any = x.grad_fn
    for _ in range(STEPS):
        if type(node).__name__ not in VIEWS:
            return None
        shape = tuple(int(n) for n in node._saved_self_sym_sizes)
        if len(shape) > x.ndim:
            return shape
        node = node.next_functions[0][0]
    return None
