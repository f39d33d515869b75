"""Places expected under the wrong distribution: a softmax along one axis, coordinates along another.

Notable: a mean of coordinates under weights, sum_i p_i x_i, is one only if the p_i add up to 1 over the same
i. Coordinates are numbers that nobody learns and that grow or fall along the axis that is summed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unvanish.core.loss_facts import SoftmaxFacts
from unvanish.probes.events import Operation
from unvanish.probes.forward import Forward
from unvanish.probes.saved import find_saved

FEWEST = 3  # coordinates
STEPS = 4  # sums between the softmax and the product


def find_expectations(watched: Forward) -> list[tuple[SoftmaxFacts, int]]:
    """Softmaxes whose weights meet coordinates of another axis than theirs, with their orders."""
    softmaxes = {o.nodes[0]: o for o in watched.operations if o.kind == "softmax"}
    found: list[tuple[SoftmaxFacts, int]] = []
    for o in watched.operations if softmaxes else ():
        if o.kind == "sum" and o.order < watched.loss_order and (softmax := _judge(o, softmaxes)) is not None:
            facts: SoftmaxFacts = {
                "path": softmax.caller.path,
                "axis": _read_axis(softmax),
                "axes": len(softmax.facts["shape"]),
                "line": "",
            }
            found.append((facts, softmax.order))
    return found[:1]


def _judge(total: Operation, softmaxes: dict[Any, Operation]) -> Operation | None:
    """The softmax below a sum of products with coordinates, if it runs along none of the summed axes."""
    node: Any = total.nodes[0]
    axes = _read_axes(node)
    product: Any = node.next_functions[0][0] if axes else None
    if type(product).__name__ != "MulBackward0":
        return None
    weights = next((n for n, _ in product.next_functions if n is not None), None)
    kept = [find_saved(product, name) for name in ("_saved_self", "_saved_other")]
    places = next((t for t in kept if t is not None and not t.requires_grad), None)
    rank = len(node._saved_self_sym_sizes)
    if weights is None or places is None or not places.is_floating_point():
        return None
    if not _are_coordinates(places, axes, rank):
        return None
    return _find_below(weights, softmaxes, axes, rank)


def _find_below(node: Any, softmaxes: dict[Any, Operation], axes: set[int], rank: int) -> Operation | None:
    """The softmax from which sums alone lead to `node`, if its axis is still there and not in `axes`."""
    gone: list[tuple[set[int], int]] = []
    for _ in range(STEPS):
        if node in softmaxes:
            softmax = softmaxes[node]
            left = list(range(len(softmax.facts["shape"])))
            for summed, before in reversed(gone):
                if len(left) != before:
                    return None
                left = [a for i, a in enumerate(left) if i not in summed]
            own = _read_axis(softmax)
            lost = own not in left or len(left) != rank
            return None if lost or left.index(own) in axes else softmax
        summed = _read_axes(node)
        if not summed or node._saved_keepdim:
            return None
        gone.append((summed, len(node._saved_self_sym_sizes)))
        node = node.next_functions[0][0]
    return None


def _read_axes(node: Any) -> set[int]:
    """The axes of a sum, counted from 0; none for other nodes."""
    if type(node).__name__ != "SumBackward1":
        return set()
    rank = len(node._saved_self_sym_sizes)
    return {(a - (1 << 64) if a >= 1 << 63 else a) % rank for a in node._saved_dim}  # torch keeps it unsigned


def _read_axis(softmax: Operation) -> int:
    node: Any = softmax.nodes[0]
    axis: int = node._saved_dim
    return (axis - (1 << 64) if axis >= 1 << 63 else axis) % len(softmax.facts["shape"])


def _are_coordinates(places: Tensor, axes: set[int], rank: int) -> bool:
    """Whether numbers grow, or fall, along one of the summed axes and stay the same along all others."""
    shape: Sequence[int] = (1,) * (rank - places.ndim) + tuple(places.shape)
    long = [i for i, n in enumerate(shape) if n > 1]
    if len(long) > len(axes) or not long or not {*long} <= axes:
        return False
    values = places.reshape(shape)
    for axis in axes.intersection(long):
        steps = values.diff(dim=axis)
        if values.shape[axis] >= FEWEST and (bool((steps > 0).all()) or bool((steps < 0).all())):
            return True
    return False
