"""Whether a step of a sequence can see those after it, read from the nodes of a graph, without a backward.

Notable:
- Where the steps lie is followed from the input through each operation: the distance of two steps, in
  numbers, tells the axis, also within rows of all samples.
- Only what is known to leave the steps apart is believed: operations on single numbers, moves of axes,
  products with weights, norms over features, one-directional recurrent layers, and products with a matrix
  between steps (attention) whose row is zero ahead, or that torch was told to mask.
- Everything else is "perhaps": then a backward is the way to know.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unvanish.probes.saved import find_saved

NUMBERWISE = frozenset({
    "Add", "Sub", "Rsub", "Mul", "Div", "Neg", "Abs", "Exp", "Log", "Log1P", "Sin", "Cos", "Tanh", "Sigmoid",
    "Relu", "Gelu", "Silu", "Mish", "LeakyRelu", "Elu", "Softplus", "Hardtanh", "Hardswish", "Hardsigmoid",
    "LogSigmoid", "Pow", "Sqrt", "Rsqrt", "Reciprocal", "Clamp", "Where", "MaskedFill", "NativeDropout",
    "ToCopy", "Clone", "Alias", "Expand",
})  # fmt: skip
VIEWS = frozenset({"View", "UnsafeView", "ReshapeAlias"})
PIECES = frozenset(
    {"Slice", "Select", "Split", "SplitWithSizes", "Unbind", "Cat", "Stack", "Unsqueeze", "Squeeze"}
)
REDUCTIONS = frozenset({"Mean", "Sum", "Var", "Std", "LinalgVectorNorm"})
SHARES = frozenset({"Softmax", "LogSoftmax", "SafeSoftmax"})
MOST = 20_000  # nodes; more are not looked at


class Unclear(Exception):
    """It cannot be told from the nodes."""


@dataclass(frozen=True)
class Where:
    """Where the steps lie in a tensor of a shape: numbers from one to the next.

    `open`: each step holds one number for each step, also for those that are ahead: scores of an attention.
    """

    shape: tuple[int, ...]
    inner: int
    open: bool = False

    def axis(self, steps: int) -> int:
        """The axis that is that of the steps and of nothing else."""
        after = 1
        for i in range(len(self.shape) - 1, -1, -1):
            if after == self.inner and self.shape[i] == steps:
                return i
            after *= self.shape[i]
        raise Unclear


class Steps:
    """The steps of a sequence, and the one that is asked about."""

    def __init__(self, steps: int, at: int) -> None:
        self.steps, self.at = steps, at
        self._known: dict[Any, Where] = {}

    def are_apart(self, output: Tensor, inputs: Collection[Any], inner: int, ending: int) -> bool:
        """Whether the output of the step can surely not depend on later ones.

        `inputs`: the nodes where the input enters; `inner`: numbers from one of its steps to the next;
        `ending`: the same in the output.
        """
        try:
            for node, sources in _list_nodes(output.grad_fn, inputs):
                before = [self._read(source, i) for source, i in sources]
                given = [where for where in before if where is not None]
                if node in inputs:
                    shape = tuple(node._input_metadata[0].shape)
                    rest = shape[-1] if node.name().startswith("Embedding") else 1
                    self._known[node] = Where(shape, inner * rest)
                elif given:
                    self._known[node] = self._follow(node, before, given)
        except (Unclear, AttributeError, RuntimeError, IndexError, TypeError, ValueError):
            return False  # also another torch, or a freed graph
        found = self._known.get(output.grad_fn)
        return found is not None and not found.open and found.inner == ending and output.output_nr == 0

    def _read(self, node: Any, i: int) -> Where | None:
        """Where the steps lie in one of what a node gave."""
        found = self._known.get(node)
        if i == 0 or found is None:
            return found
        if not node.name().startswith(("Split", "Unbind")):
            raise Unclear
        return self._place(tuple(node._input_metadata[i].shape), found.axis(self.steps))

    def _follow(self, node: Any, before: Sequence[Where | None], given: Sequence[Where]) -> Where:
        """Where the steps lie in what an operation gave; `given`: those before it that hold them."""
        kind, _, rest = node.name().partition("Backward")
        shape = tuple(node._input_metadata[0].shape)
        if rest and not rest.isdigit():
            raise Unclear
        if kind in VIEWS:
            return self._view(shape, given[0])
        if kind in NUMBERWISE:
            return self._spread(shape, given)
        if kind in ("Bmm", "Baddbmm"):
            return self._multiply(node, shape, *before[-2:])
        if kind in SHARES:
            return self._share(node, given[0])
        if any(where.open for where in given):
            raise Unclear
        if kind in ("Mm", "Addmm"):
            return _multiply_rows(shape, *before[-2:])
        if kind in ("Transpose", "T", "Permute"):
            return self._turn(node, kind, shape, given[0])
        if kind in PIECES:
            return self._cut(node, kind, shape, given)
        if kind in REDUCTIONS or kind in ("NativeLayerNorm", "FusedRmsNorm"):
            return self._reduce(node, shape, given[0])
        if kind.startswith("ScaledDotProduct") and self._is_masked(node, given):
            return self._place(shape, len(shape) - 2)
        if kind == "MkldnnRnnLayer" and not (node._saved_reverse or node._saved_bidirectional):
            return self._place(shape, given[0].axis(self.steps))
        raise Unclear

    def _place(self, shape: tuple[int, ...], axis: int, still_open: bool = False) -> Where:
        if shape[axis] != self.steps:
            raise Unclear
        return Where(shape, math.prod(shape[axis + 1 :]), still_open)

    def _spread(self, shape: tuple[int, ...], given: Sequence[Where]) -> Where:
        """Numbers with numbers, those of one axis shared along others."""
        if len(given) == 1 and given[0].shape == shape:
            return given[0]
        found = {
            where.inner
            if where.shape == shape
            else self._place(shape, len(shape) - len(where.shape) + where.axis(self.steps)).inner
            for where in given
        }
        if len(found) > 1:
            raise Unclear
        return Where(shape, found.pop(), any(where.open for where in given))

    def _view(self, shape: tuple[int, ...], before: Where) -> Where:
        if before.open and shape[-1] != before.shape[-1]:
            raise Unclear
        return Where(shape, before.inner, before.open)

    def _share(self, node: Any, before: Where) -> Where:
        """A softmax over anything but the steps."""
        shape, axis = before.shape, _axis(node._saved_dim, before.shape)
        last = axis == len(shape) - 1
        if (before.open and not last) or before.inner < math.prod(shape[axis:]):
            raise Unclear
        return before

    def _turn(self, node: Any, kind: str, shape: tuple[int, ...], before: Where) -> Where:
        order = list(range(len(shape)))
        if kind == "Permute":
            order = [_axis(d, shape) for d in node._saved_dims]
        else:
            a, b = (0, 1) if kind == "T" else (_axis(node._saved_dim0, shape), _axis(node._saved_dim1, shape))
            order[a], order[b] = order[b], order[a]
        return self._place(shape, order.index(before.axis(self.steps)))

    def _cut(self, node: Any, kind: str, shape: tuple[int, ...], given: Sequence[Where]) -> Where:
        """Pieces along, or a new or dropped, axis that is not that of the steps."""
        axes = {where.axis(self.steps) for where in given}
        own = axes.pop()
        longer = len(shape) - len(given[0].shape)
        dim = _axis(node._saved_dim, shape if longer > 0 else given[0].shape)
        if axes or (dim == own and longer <= 0):
            raise Unclear
        return self._place(shape, own + longer * (dim <= own))

    def _reduce(self, node: Any, shape: tuple[int, ...], before: Where) -> Where:
        """A mean or a norm over the last axes, which are not that of the steps."""
        own = getattr(node, "_saved_normalized_shape", None)
        dims = [len(shape) - 1] if own is None else range(len(shape) - len(own), len(shape))
        if own is None:
            dims = [_axis(d, before.shape) for d in node._saved_dim]
        if not dims or before.inner < math.prod(before.shape[min(dims) :]):
            raise Unclear
        return self._place(shape, before.axis(self.steps))

    def _multiply(self, node: Any, shape: tuple[int, ...], a: Where | None, b: Where | None) -> Where:
        """Products of matrices: scores, rows with weights, or weights between steps with what they weigh."""
        if b is not None and not b.open and b.inner == b.shape[2]:  # the steps are added up
            name = "_saved_batch1" if node.name().startswith("Badd") else "_saved_self"
            weights = find_saved(node, name)
            if weights is None or weights.shape[1:] != (self.steps, self.steps) or (a and not a.open):
                raise Unclear
            if bool(weights.detach()[:, self.at, self.at + 1 :].any()):
                raise Unclear
            return self._place(shape, 1)
        if a is None or a.open or a.axis(self.steps) != 1 or (b is not None and b.axis(self.steps) != 2):
            raise Unclear
        return self._place(shape, 1, still_open=b is not None)

    def _is_masked(self, node: Any, given: Sequence[Where]) -> bool:
        """An attention of torch's own along the steps, under a mask."""
        if any(where.axis(self.steps) != len(where.shape) - 2 for where in given):
            return False
        if node._saved_is_causal:
            return True
        for name in ("_saved_attn_mask", "_saved_attn_bias"):
            mask = find_saved(node, name)
            if mask is not None and mask.shape[-2:] == (self.steps, self.steps):
                ahead = mask.detach()[..., self.at, self.at + 1 :]
                return not bool(ahead.any() if ahead.dtype == torch.bool else (ahead > -math.inf).any())
        return False


def _multiply_rows(shape: tuple[int, ...], a: Where | None, b: Where | None) -> Where:
    """Rows, each of one step, with weights."""
    if a is None or b is not None or a.inner % a.shape[1]:
        raise Unclear
    return Where(shape, a.inner // a.shape[1] * shape[1])


def _axis(dim: int, shape: Sequence[int]) -> int:
    """An axis as a node keeps it: -1 may be a large number."""
    dim = int(dim)
    dim = dim - 2**64 if dim >= 2**63 else dim
    return dim + len(shape) if dim < 0 else dim


def _list_nodes(root: Any, inputs: Collection[Any]) -> list[tuple[Any, Sequence[tuple[Any, int]]]]:
    """The nodes that an output was made by, in their order, each with those before it; none if too many."""
    sources: dict[Any, Sequence[tuple[Any, int]]] = {}
    todo = [root]
    while todo:
        node = todo.pop()
        if node not in sources:
            sources[node] = () if node in inputs else node.next_functions
            todo += [source for source, _ in sources[node] if source is not None]
        if len(sources) > MOST:
            return []
    return sorted(sources.items(), key=lambda pair: -1 if pair[0] in inputs else pair[0]._sequence_nr())
