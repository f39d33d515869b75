"""Operations that may mix samples: the cheap signs, read as they run, that ask for a look at the gradient.

Notable: a sign alone says nothing; views and transposes of sound code give some, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unvanish.core.facts import MixingKind
from unvanish.core.loss_facts import SwapFacts
from unvanish.probes.axes_swapped import read_swap
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.handles import Node
from unvanish.probes.lines import find_line
from unvanish.probes.smoothing import AVERAGING, measure_smoothing

ALONG = {
    "softmax",
    "log_softmax",
    "cumsum",
    "cumprod",
    "logcumsumexp",
    "linalg_vector_norm",
    "norm",
    "cummax",
}
TURNED = {"softmax", "log_softmax", "layer_norm", "linalg_vector_norm", "norm"}  # also of a transposed one
STATISTICS = {"mean", "var", "std", "var_mean", "std_mean"}
MANY = 4  # rows a sample, of which none goes beyond the first sample's places: no chance
GROUPED = 5  # axes of images in groups, at least
RESHAPES = {"view", "reshape", "flatten", "unflatten", "ravel"}
PRODUCTS = {"matmul", "bmm", "mm", "einsum", "baddbmm"}
CHANNELS = {"linear": -1, "conv1d": 1, "conv2d": 1, "conv3d": 1}  # the axis whose numbers a layer adds up
SCATTERED = {"index_add", "scatter_add", "scatter", "index_reduce", "scatter_reduce", "index_copy"}

JOINS = {"cat", "concat"}

KINDS = JOINS | ALONG | TURNED | STATISTICS | RESHAPES | PRODUCTS | CHANNELS.keys() | SCATTERED | AVERAGING


@dataclass(frozen=True)
class Sign:
    """An operation that may mix samples: how, its node, when and where it ran."""

    how: MixingKind
    node: Node
    order: int
    path: str
    line: str


class MixingSigns:
    """The signs of one forward; `batch`: the number of samples, of which one alone is never mixed."""

    def __init__(self, batch: int | None) -> None:
        self.batch = batch or 0
        self.kinds = KINDS if self.batch > 1 else set()
        self.signs: list[Sign] = []
        self.joined: set[int] = set()  # rows of batches that were put one behind the other
        self.by_hand = False  # statistics of the batch are taken by hand
        self.swaps: list[SwapFacts] = []  # views in place of transposes

    def look(self, operation: Operation, call: OperationCall, result: Tensor) -> None:
        """Keep the sign that an operation gives, if it gives one."""
        if result.is_nested or any(isinstance(a, Tensor) and a.is_nested for a in call.args):
            return
        self.by_hand = self.by_hand or is_statistic(call, self.batch)
        if call.kind in AVERAGING and (left := measure_smoothing(call, result)) is not None:
            operation.facts["smooths"] = left
        if call.kind in RESHAPES and (swap := read_swap(operation, call, result, self.batch)) is not None:
            self.swaps.append(swap)
        how = find_sign(call, result, self.batch) or self._find_cut(call, result)
        if how is not None:
            path = operation.caller.path
            self.signs.append(Sign(how, operation.nodes[0], operation.order, path, find_line()))

    def _find_cut(self, call: OperationCall, result: Tensor) -> MixingKind | None:
        """Whether a view cuts batches that were joined into as many rows as samples."""
        if call.kind in JOINS:
            parts = tensors_in(call.args, 2)
            if result.ndim > 1 and all(t.ndim == result.ndim and len(t) == self.batch for t in parts):
                self.joined |= {len(result)} - {self.batch}
            return None
        x = call.args[0] if call.kind in RESHAPES and call.args else None
        known = isinstance(x, Tensor) and x.ndim > 0 and len(x) in self.joined and result.ndim > 0
        return "reshape" if known and len(result) == self.batch else None


def is_statistic(call: OperationCall, batch: int) -> bool:
    """Whether a call takes the mean or the spread over the samples, or over groups of them (Karras 2018)."""
    x = call.args[0] if call.args else None
    if call.kind not in STATISTICS or not isinstance(x, Tensor) or x.ndim < 2:
        return False
    grouped = x.ndim >= GROUPED and batch % max(1, x.shape[0]) == 0
    return (x.shape[0] == batch or grouped) and 0 in _dimensions(call, x.ndim)


def find_sign(call: OperationCall, result: Tensor, batch: int) -> MixingKind | None:
    """How a call may mix the samples along the first axis; None without a sign of it."""
    x = call.args[0] if call.args else None
    if isinstance(x, Tensor) and x.ndim > 1 and _runs_over_samples(call, x, batch):
        return "along"
    if isinstance(x, Tensor) and call.kind in CHANNELS and x.ndim > 2:
        channels = x.shape[CHANNELS[call.kind]]
        return "along" if channels == batch != x.shape[0] else None
    if isinstance(x, Tensor) and call.kind in SCATTERED and x.ndim:
        return _judge_places(call, x, batch) if x.shape[0] > batch and x.shape[0] % batch == 0 else None
    if call.kind in RESHAPES and isinstance(x, Tensor) and x.ndim and result.ndim:
        return "reshape" if _crosses(x.shape, result.shape, batch) else None
    if call.kind in PRODUCTS and result.ndim >= 2 and tuple(result.shape[-2:]) == (batch, batch):
        factors = [t for t in tensors_in(call.args, 2) if t.requires_grad]
        return "product" if len(factors) > 1 else None
    return None


def _judge_places(call: OperationCall, x: Tensor, batch: int) -> MixingKind:
    """Whether rows of all samples are added up at the places of the first one alone."""
    places = next((t for t in tensors_in(call.given, 1) if not t.is_floating_point() and t is not x), None)
    if places is None or places.numel() < MANY * batch or places.is_meta:
        return "scatter"
    return "offset" if int(places.max()) < x.shape[0] // batch else "scatter"


def _runs_over_samples(call: OperationCall, x: Tensor, batch: int) -> bool:
    """Whether a call runs over the first axis, or over one that was the first before a transpose."""
    if call.kind in ALONG and x.shape[0] == batch and 0 in _dimensions(call, x.ndim):
        return True
    if call.kind not in TURNED or x.layout is not torch.strided:
        return False
    axes = {x.ndim - 1} if call.kind == "layer_norm" else _dimensions(call, x.ndim)
    if x.ndim > 2 and 1 in axes and x.shape[1] == batch != x.shape[0] and "softmax" in call.kind:
        return True  # branches that were stacked before the samples
    return any(d and x.shape[d] == batch and x.stride(d) == max(x.stride()) > 1 for d in axes)


def _dimensions(call: OperationCall, axes: int) -> set[int]:
    """The axes that a call runs over, counted from 0."""
    given: Any = call.kwargs.get("dim", call.kwargs.get("axis"))
    if given is None:
        rest: Sequence[Any] = call.args[1:]
        place = 1 if call.kind in ("norm", "linalg_vector_norm") else 0
        given = rest[place] if len(rest) > place else None
    if isinstance(given, int):
        given = (given,)
    if not isinstance(given, (tuple, list)) or len(given) == axes:
        return set()
    return {d % axes for d in given if isinstance(d, int)}


def _crosses(before: Sequence[int], after: Sequence[int], batch: int) -> bool:
    """Whether a reshape puts numbers of several samples side by side, or the sample axis elsewhere."""
    size = math.prod(before)
    if not size or tuple(before) == tuple(after):
        return False
    if before[0] == batch and after[0] != batch:
        sample, row = size // batch, size // after[0]
        return bool(sample % row) or (len(after) > 2 and after[1] == batch)
    return after[0] == batch and before[0] != batch and batch in before[1:] and before[0] % batch != 0
