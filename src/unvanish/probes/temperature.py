"""The factor before logits that are cosines: logits bounded by it, however long a net trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

UNIT = 1e-3  # relative: how far from each other the squared lengths of rows may be
ROWS = 64  # that are looked at
STEPS = 14  # scalings, views, masks and margins between a product and the loss
PRODUCTS = ("Mm", "Bmm")
PASSING = {
    "Transpose", "Permute", "T", "View", "ReshapeAlias", "Unsqueeze", "Squeeze", "MaskedFill", "ToCopy",
    "Clone", "Index", "Gather", "Clamp", "ClampMin", "ClampMax", "Acos",
}  # fmt: skip
WITHIN_ONE = {"Cos", "Sin", "Sqrt", "Pow"}  # of a cosine, or of its angle
JOINING = {"Add", "Sub", "Rsub", "Where", "IndexPut"}


def find_cosine_scale(node: Any) -> float | None:
    """The factor of cosines whose graph ends in `node`; None if it is no product of rows of length one.

    A margin on the cosine or its angle, as in losses of faces, keeps it one.
    """
    return _follow(node, STEPS)


def _follow(node: Any, left: int) -> float | None:
    """The factor of the cosines that an elementwise graph is made of; None if some part is none."""
    name = type(node).__name__.rpartition("Backward")[0]
    if name in PRODUCTS:
        return _read_lengths(node)
    edges = [n for n, _ in node.next_functions]
    if not left or not edges:
        return None
    if name in JOINING:
        parts = [_follow(n, left - 1) for n in edges if n is not None]
        return None if None in parts else max((p for p in parts if p is not None), default=None)
    scale, below = _read_scale(node, name, edges)
    found = None if scale is None or below is None else _follow(below, left - 1)
    if scale is None or found is None:
        return None
    return 1.0 if name in WITHIN_ONE else scale * found


def _read_scale(node: Any, name: str, edges: list[Any]) -> tuple[float | None, Any]:
    """The largest number that a node multiplies with, and the node below it."""
    if name in PASSING or name in WITHIN_ONE:
        return 1.0, edges[0]
    if name not in ("Mul", "Div"):
        return None, None
    one, other = _number(node, "_saved_self"), _number(node, "_saved_other")
    if name == "Div":
        return (None, None) if not other else (1 / other, edges[0])
    if other is not None and edges[0] is not None:
        return other, edges[0]
    return (one, edges[1]) if one is not None and len(edges) > 1 else (None, None)


def _number(node: Any, name: str) -> float | None:
    """The number, or the largest of constants, by which a product is multiplied."""
    if name not in dir(node):
        return None
    value = getattr(node, name)
    if not isinstance(value, Tensor) or not value.numel():
        return None
    if value.numel() == 1:
        return float(value.detach())
    return None if value.requires_grad else float(value.abs().max())


@torch.no_grad()
def _read_lengths(node: Any) -> float | None:
    """The lengths of the rows and the columns that a matrix product joins, multiplied, if they are equal."""
    left, right = (getattr(node, name, None) for name in ("_saved_self", "_saved_mat2"))
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return None
    rows, columns = left[..., :ROWS, :].double(), right[..., :ROWS].double()
    length = 1.0
    for x, axis in ((rows, -1), (columns, -2)):
        least, most = (float(v) for v in torch.aminmax(x.square().sum(axis)))
        if not 0 < most <= least * (1 + UNIT):
            return None
        length *= most**0.5
    return length
