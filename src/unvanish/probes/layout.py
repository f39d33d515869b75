"""Whether the classes that a loss reads lie along the axis on which the last layer made them.

Notable: views, permutations and element-wise operations are followed from the layer to the loss on a tensor
that says, for every element, which sample and position it came from; it shares one number for all classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unvanish.probes import operations
from unvanish.probes.events import Operation

MOST = 1 << 20  # elements that are followed
CHANNELS_FIRST = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
Step = Callable[[Any, Tensor], Tensor]


def _reshape(node: Any, x: Tensor) -> Tensor:
    return x.reshape(tuple(node._input_metadata[0].shape))


def _wrap(axis: int) -> int:
    return axis - (1 << 64) if axis >= 1 << 63 else axis  # torch keeps it unsigned


STEPS: dict[str, Step] = {
    **dict.fromkeys(("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze"), _reshape),
    "Transpose": lambda node, x: x.transpose(_wrap(node._saved_dim0), _wrap(node._saved_dim1)),
    "Permute": lambda node, x: x.permute([_wrap(axis) for axis in node._saved_dims]),
    "T": lambda node, x: x.t(),
    **dict.fromkeys(
        ("Clone", "ToCopy", "Log", "LogSoftmax", "Softmax", "Add", "Div", "Mul", "Clamp", "Relu", "Alias"),
        lambda node, x: x,
    ),
}


def is_crossed(reads: Any, x: Tensor, maker: Operation, axis: int) -> bool:
    """Whether elements along `axis` of what a loss reads are not the classes of one position.

    `reads`: the node of x; `maker`: the layer below it.
    """
    shape = maker.facts.get("shape", ())
    if maker.family != "layer" or len(shape) < 2 or not 0 < math.prod(shape) <= MOST:
        return False
    feature = 1 if maker.kind in CHANNELS_FIRST else len(shape) - 1
    if shape[feature] != x.shape[axis] or shape[feature] < 2:
        return False
    if x.ndim == 2 and feature == len(shape) - 1 and not _turns(reads, maker):
        return False  # rows stay rows
    places = [n for i, n in enumerate(shape) if i != feature]
    source = torch.arange(math.prod(places)).reshape(places).unsqueeze(feature).expand(shape)
    followed = _follow(reads, maker, source)
    if followed is None or followed.shape != x.shape:
        return False
    return bool((followed != followed.narrow(axis, 0, 1)).any())


def follow_axis(reads: Any, maker: Operation, axis: int) -> list[int] | None:
    """The axes of what an operation reads along which an axis of the maker's result lies; None if unknown."""
    shape = maker.facts.get("shape", ())
    if not 0 < math.prod(shape) <= MOST:
        return None
    places = torch.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    followed = _follow(reads, maker, places.expand(shape))
    if followed is None:
        return None
    return [i for i in range(followed.ndim) if bool((followed != followed.narrow(i, 0, 1)).any())]


def _turns(reads: Any, maker: Operation) -> bool:
    """Whether axes are permuted between a layer and the loss."""
    node = reads
    for _ in range(operations.FEW):
        if node is None or node in maker.nodes:
            return False
        if type(node).__name__.removesuffix("Backward0") in ("Transpose", "Permute", "T"):
            return True
        node = next((n for n, _ in node.next_functions if n is not None), None)
    return True


def _follow(reads: Any, maker: Operation, x: Tensor) -> Tensor | None:
    """What becomes of a tensor on the way from a layer to the loss; None if that is not known."""
    path: list[Any] = []
    node = reads
    while node is not None and node not in maker.nodes:
        path.append(node)
        edges = [n for n, _ in node.next_functions if n is not None]
        if len(edges) != 1 or len(path) > operations.FEW:
            return None
        node = edges[0]
    if node is None:
        return None
    for passed in reversed(path):
        step = STEPS.get(type(passed).__name__.removesuffix("Backward0").removesuffix("Backward1"))
        if step is None:
            return None
        x = step(passed, x)
    return x
