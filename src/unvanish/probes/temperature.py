"""The factor before logits that are cosines: logits bounded by it, however long a net trains.

Notable:
- A product is one of cosines if the rows that it joins have one length each, whatever made them so: read from
  what the graph saves for the backward, not from names of functions.
- What only moves a logit by a constant, as a margin or a mask, leaves the factor as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unvanish.probes.saved import find_saved

UNIT = 1e-3  # relative: how far from each other the squared lengths of rows may be
ROWS = 64  # that are looked at
STEPS = 24  # scalings, views and masks between a product and the loss
PASSED = {
    f"{name}Backward0"
    for name in (
        *("Transpose", "Permute", "T", "View", "UnsafeView", "ReshapeAlias", "Alias", "Clone", "MaskedFill"),
        *(
            "ToCopy",
            "Expand",
            "Unsqueeze",
            "Squeeze",
            "Select",
            "Slice",
            "Index",
            "AsStrided",
            "Neg",
            "Where",
        ),
        *("Diagonal", "Gather", "Clamp", "ClampMin", "IndexPut"),
    )
} | {"SqueezeBackward1", "SqueezeBackward2", "ClampBackward1", "ScatterBackward1"}
SHIFTED = ("AddBackward0", "SubBackward0", "RsubBackward1", "AddBackward1")
SCORES = ("AddmmBackward0", "MmBackward0", "ConvolutionBackward0")
WRITTEN = ("IndexPutBackward0", "CopySlices", "ScatterBackward0")  # a part of the logits was overwritten
BOUNDED = ("CosBackward0", "SinBackward0")
WITHIN = ("SqrtBackward0", "PowBackward0")  # of a cosine: its sine
JOINING = (*SHIFTED, "WhereBackward0")  # a margin on some of them


class Cosines(NamedTuple):
    """The factor of logits that are cosines, and whether it is learned."""

    factor: float
    learned: bool = False

    def times(self, number: float, learned: bool = False) -> Cosines:
        """The same with one more factor."""
        return Cosines(self.factor * number, self.learned or learned)


def find_cosines(node: Any) -> Cosines | None:
    """What scales the cosines whose graph ends in `node`; None if it is no product of rows of length one."""
    return _follow(node, None, STEPS)


def find_factor(node: Any) -> float:
    """The numbers that a layer's scores are multiplied by on their way to `node`, none of them learned."""
    factor = 1.0
    for _ in range(STEPS):
        name = type(node).__name__
        edges = [n for n, _ in node.next_functions if n is not None] if node is not None else []
        if name in SCORES:
            return factor
        if name in ("MulBackward0", "DivBackward0") and len(edges) == 1:
            value = find_saved(node, "_saved_other")
            if value is None or value.numel() != 1 or value.is_complex() or not float(value):
                return 1.0
            factor *= float(value) if name == "MulBackward0" else 1 / float(value)
        elif len(edges) != 1 or name not in PASSED:
            return 1.0
        node = edges[0]
    return 1.0


def _follow(node: Any, divisor: Tensor | None, left: int) -> Cosines | None:
    """`divisor`: the tensor by which the result was divided on the way."""
    while node is not None and left > 0:
        name, left = type(node).__name__, left - 1
        edges = [n for n, _ in node.next_functions if n is not None]
        if name in BOUNDED:
            return None if divisor is not None else Cosines(1.0)
        if name in PRODUCTS:
            length = PRODUCTS[name](node, divisor)
            return None if length is None else Cosines(length)
        if name == "CatBackward0" or (name in JOINING and len(edges) > 1):
            return _join([_follow(n, divisor, left) for n in edges])
        if name in WITHIN:
            return None if _follow(edges[0], divisor, left) is None else Cosines(1.0)
        if name in ("MulBackward0", "DivBackward0"):
            return _scale(node, name, divisor, left)
        if name in WRITTEN:
            node = edges[0] if edges else None
            continue
        if len(edges) != 1 or (name not in PASSED and name not in SHIFTED):
            return None
        node = edges[0]
    return None


def _join(parts: list[Cosines | None]) -> Cosines | None:
    """Logits that were put together."""
    known = [p for p in parts if p is not None]
    if not known or len(known) < len(parts):
        return None
    return max(known, key=lambda p: abs(p.factor))


def _scale(node: Any, name: str, divisor: Tensor | None, left: int) -> Cosines | None:
    """What a product with a number, or a quotient, makes of cosines below it."""
    edges = [n for n, _ in node.next_functions]
    one, other = find_saved(node, "_saved_self"), find_saved(node, "_saved_other")
    if name == "DivBackward0":
        if other is None or other.numel() > 1:
            below = divisor is None and other is not None and _is_bounded(one, other)
            return _follow(edges[0], other, left) if below else None
        found, number = _follow(edges[0], divisor, left), float(other.detach())
        return None if found is None or not number else found.times(1 / number, _is_learned(edges))
    for value, edge in ((other, edges[0]), (one, edges[-1])):
        if value is None or edge is None or not value.numel():
            continue
        if value.numel() == 1 or not value.requires_grad:  # a number, or a mask
            found = _follow(edge, divisor, left)
            largest = value.detach().double().abs().max() if value.numel() > 1 else value.detach()
            return None if found is None else found.times(float(largest), _is_learned(edges))
    return None


@torch.no_grad()
def _is_bounded(one: Tensor | None, other: Tensor) -> bool:
    """Whether no quotient exceeds one, as far as it is known."""
    return one is None or bool(((one / other).abs() < 1 + UNIT).all())


def _is_learned(edges: list[Any]) -> bool:
    """Whether the number of a product or a quotient has a gradient itself."""
    return sum(edge is not None for edge in edges) > 1


@torch.no_grad()
def _read_product(node: Any, divisor: Tensor | None) -> float | None:
    """The lengths of the rows and the columns that a matrix product joins, multiplied, if they are equal."""
    left, right = find_saved(node, "_saved_self"), find_saved(node, "_saved_mat2")
    if divisor is not None:
        return _read_normed(left, right, divisor)
    rows = _length_below(node, 0) if left is None else _length(left[..., :ROWS, :], -1)
    if rows is None:
        return None
    return _multiply(rows, _length_below(node, 1) if right is None else _length(right[..., :ROWS], -2))


def _length_below(node: Any, side: int) -> float | None:
    """The same of a side that the graph did not save, if it was divided by its own lengths."""
    below = node.next_functions[side][0]
    for _ in range(STEPS):
        name = type(below).__name__
        if name == "DivBackward0":
            one, other = find_saved(below, "_saved_self"), find_saved(below, "_saved_other")
            if one is None or other is None:
                return None
            lengths = (_length(one / other, axis) for axis in range(one.ndim))
            return next((v for v in lengths if v is not None and abs(v - 1) < UNIT), None)
        if name not in PASSED:
            return None
        below = below.next_functions[0][0]
    return None


def _read_normed(left: Tensor | None, right: Tensor | None, divisor: Tensor) -> float | None:
    """One, if a product was divided by the lengths of its rows and columns, as far as both are known."""
    if divisor.ndim != 2 or (left is None and right is None):
        return None
    rest = divisor
    for side, axis in ((left, 1), (right, 0)):
        if side is not None:
            if side.ndim != 2 or side.shape[1 - axis] != divisor.shape[1 - axis]:
                return None
            rest = rest / side.norm(dim=axis, keepdim=True)
    for side, axis in ((left, 1), (right, 0)):  # of a side that is not known, one length a row
        if side is None:
            return (
                1.0
                if torch.allclose(rest, rest.mean(axis, keepdim=True).expand_as(rest), rtol=UNIT)
                else None
            )
    return 1.0 if torch.allclose(rest, torch.ones_like(rest), rtol=UNIT) else None


@torch.no_grad()
def _read_sum(node: Any, divisor: Tensor | None) -> float | None:
    """The same of a product summed by hand."""
    below = node.next_functions[0][0]
    if divisor is not None or type(below).__name__ != "MulBackward0":
        return None
    one, other = find_saved(below, "_saved_self"), find_saved(below, "_saved_other")
    known = next((t for t in (one, other) if t is not None), None)
    if known is None or len(node._saved_dim) != 1:
        return None
    axis = node._saved_dim[0]
    axis -= 1 << 64 if axis >= 1 << 63 else 0  # torch keeps it unsigned
    axis = axis % len(node._saved_self_sym_sizes) - len(node._saved_self_sym_sizes)
    return _multiply(
        _length_below(below, 0) if one is None else _length(one, axis),
        _length_below(below, 1) if other is None else _length(other, axis),
    )


@torch.no_grad()
def _read_convolution(node: Any, divisor: Tensor | None) -> float | None:
    """The same of a convolution whose filters see one place."""
    image, weight = find_saved(node, "_saved_input"), find_saved(node, "_saved_weight")
    if image is None or weight is None or divisor is not None or node.next_functions[-1][0] is not None:
        return None
    if math.prod(weight.shape[2:]) != 1 or image.ndim != weight.ndim or image.shape[1] != weight.shape[1]:
        return None
    own = _length(weight, 1)
    return None if own is None else _multiply(own, _length(image, 1))


def _length(rows: Tensor, axis: int) -> float | None:
    """The length that all rows along an axis share."""
    if not rows.numel() or rows.ndim < -axis or rows.shape[axis] < 2:
        return None
    least, most = (float(v) for v in torch.aminmax(rows.double().square().sum(axis)))
    return most**0.5 if 0 < most <= least * (1 + UNIT) else None


def _multiply(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one * other


PRODUCTS: dict[str, Callable[[Any, Tensor | None], float | None]] = {
    "MmBackward0": _read_product,
    "BmmBackward0": _read_product,
    "SumBackward1": _read_sum,
    "ConvolutionBackward0": _read_convolution,
}
