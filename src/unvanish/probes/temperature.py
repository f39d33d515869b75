"""The factor before logits that are cosines: logits bounded by it, however long a net trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

UNIT = 1e-3  # relative: how far from each other the squared lengths of rows may be
ROWS = 64  # that are looked at
STEPS = 6  # scalings, views and masks between a product and the loss


def find_cosine_scale(node: Any) -> float | None:
    """The factor of cosines whose graph ends in `node`; None if it is no product of rows of length one."""
    factor = 1.0
    for _ in range(STEPS):
        name = type(node).__name__
        if name in ("MmBackward0", "BmmBackward0"):
            length = _read_lengths(node)
            return None if length is None else factor * length
        scale, below = _read_scale(node, name)
        if scale is None or below is None:
            return None
        factor, node = factor * scale, below
    return None


def _read_scale(node: Any, name: str) -> tuple[float | None, Any]:
    """The number that a node multiplies with, and the node below it."""
    edges = [n for n, _ in node.next_functions]
    if name in (
        "TransposeBackward0",
        "PermuteBackward0",
        "TBackward0",
        "ViewBackward0",
        "MaskedFillBackward0",
        "ToCopyBackward0",
    ):
        return 1.0, edges[0]
    if name not in ("MulBackward0", "DivBackward0"):
        return None, None
    one, other = _number(node, "_saved_self"), _number(node, "_saved_other")
    if name == "DivBackward0":
        return (None, None) if not other else (1 / other, edges[0])
    if other is not None:
        return other, edges[0]
    return (one, edges[1]) if one is not None and len(edges) > 1 else (None, None)


def _number(node: Any, name: str) -> float | None:
    if name not in dir(node):
        return None
    value = getattr(node, name)
    return float(value.detach()) if isinstance(value, Tensor) and value.numel() == 1 else None


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
