"""Tensors put back: their numbers bit for bit, their storage, version, gradient, flags, hooks and attributes.

Notable:
- Numbers are compared as bits, so that NaN and -0.0 count, and written only if they differ.
- A tensor that shares its storage, or does not fill it, is kept with the whole storage, once.
- Beyond LARGE bytes, what is no parameter or buffer is not copied, only summed up: if it was written to, the
  report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Undo = Callable[[], str | None]  # may be called again; says what it could not put back, in a word or two

LARGE = 1 << 28  # bytes of a tensor or an array that is copied though it is no parameter or buffer
USUAL = (Tensor, nn.Parameter, nn.Buffer)
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
set_versions: Callable[[Any, Any], None] = torch._C._autograd._unsafe_set_version_counter
ONE_BY_ONE = torch.__version__.startswith("2.6")  # where the versions are set of one tensor at a time


class KeptTensors:
    """Tensors as they are now; `most`: bytes of a parameter or buffer whose numbers are copied, at most."""

    def __init__(self, most: float) -> None:
        self.most = most
        self.storages: set[int] = set()
        self.undo: list[Undo] = []

    def keep(self, tensor: Tensor, registered: bool) -> Iterable[Any]:
        """Keep a tensor; returns what else it reaches: its gradient, its attributes, its hooks."""
        most = self.most if registered else min(self.most, LARGE)
        reached: list[Any] = []
        state = _state(tensor, reached)
        if type(tensor) in USUAL and tensor.layout is torch.strided and not tensor.is_meta:
            self._keep_strided(tensor, state, most)
        elif is_lazy(tensor) or tensor.is_meta:
            self.undo.append(_plain(tensor, state))
        elif tensor.layout is not torch.strided or tensor.is_nested or hasattr(tensor, "__tensor_flatten__"):
            parts = list(_parts(tensor))
            reached += parts
            self.undo.append(_plain(tensor, state) if parts else _copied(tensor, state))
        else:
            self._keep_strided(tensor, state, most)
        return reached

    def _keep_strided(self, tensor: Tensor, state: Undo, most: float) -> None:
        storage = tensor.untyped_storage()
        alias, size, whole = tensor.detach(), storage.nbytes(), tensor.numel() * tensor.itemsize
        own = whole == size and tensor.itemsize in BITS and tensor.is_contiguous() and not tensor.is_quantized
        if not own and storage._cdata in self.storages:
            self.undo.append(_numbers(tensor, alias, None, state, size))
            return
        if own:
            bits = alias.view(BITS[tensor.itemsize])
        else:
            bits = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
        self.storages.add(storage._cdata)
        large = size > most
        self.undo.append(_numbers(tensor, alias, bits, state, size, large))


def _numbers(
    tensor: Tensor, alias: Tensor, bits: Tensor | None, state: Undo, size: int, large: bool = False
) -> Undo:
    """Puts back the numbers through `bits`, a view of the storage; None if another tensor does."""
    storage, shape, stride, dtype = alias.untyped_storage(), alias.shape, alias.stride(), alias.dtype
    place = storage._cdata
    version = None if tensor.is_inference() else tensor._version
    kept = None if bits is None or large else bits.clone()
    total = _sum(bits) if bits is not None and large else 0
    mode: Callable[[], AbstractContextManager[Any]] = (
        torch.inference_mode if tensor.is_inference() else nullcontext
    )

    def undo() -> str | None:
        said = state()
        if (
            tensor.shape != shape
            or tensor.dtype != dtype
            or tensor.stride() != stride
            or tensor.untyped_storage()._cdata != place
        ):
            tensor.data = alias
        if storage.nbytes() != size:
            storage.resize_(size)
        if bits is not None and kept is not None:
            if not torch.equal(bits, kept):
                with mode():
                    bits.copy_(kept)
        elif bits is not None and _sum(bits) != total:
            return f"written to, and too large to be copied ({size >> 20:,} MB)"
        if version is not None and tensor._version != version:
            set_versions(*((tensor, version) if ONE_BY_ONE else ((tensor,), (version,))))
        return said

    return undo


def _sum(bits: Tensor) -> int:
    return int(bits.sum(dtype=torch.int64))


def _plain(tensor: Tensor, state: Undo) -> Undo:
    """For tensors without numbers of their own: what they are, and what stands for them."""
    alias, kind = tensor.detach(), tensor.__class__

    def undo() -> str | None:
        if tensor.__class__ is not kind or tensor.shape != alias.shape or is_lazy(tensor) or tensor.is_sparse:
            tensor.__class__ = kind
            tensor.data = alias
        return state()

    return undo


def _copied(tensor: Tensor, state: Undo) -> Undo:
    """For tensors of other layouts: copied, and written back if a copy of them can be."""
    kept, version = tensor.detach().clone(), tensor._version

    def undo() -> str | None:
        if tensor._version != version:
            tensor.detach().copy_(kept)
        return state()

    return undo


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that hold the numbers of a sparse one, or of one that wraps others."""
    if tensor.layout is torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
    elif hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        yield from (getattr(tensor, name) for name in names)


def _state(tensor: Tensor, reached: list[Any]) -> Undo:
    """What belongs to the tensor itself: class, flag, graph, gradient, attributes, hooks."""
    flag, leaf, node = tensor.requires_grad, tensor.is_leaf, tensor.grad_fn
    gradient = tensor.grad if leaf else None
    attributes: dict[str, Any] = vars(tensor)
    own = dict(attributes) if attributes else None
    hooks, after = tensor._backward_hooks, tensor._post_accumulate_grad_hooks
    if gradient is not None:
        reached.append(gradient)
    reached += [table for table in (own, hooks, after) if table]

    def undo() -> str | None:
        said = None if tensor.grad_fn is node else _leave_graph(tensor, leaf)
        if leaf and tensor.is_leaf:
            if tensor.requires_grad != flag:
                tensor.requires_grad_(flag)
            if tensor.grad is not gradient:
                tensor.grad = gradient
        now = vars(tensor)
        if now or own:
            refill(now, own or {})
        if tensor._backward_hooks is not hooks:
            tensor._backward_hooks = hooks
        if tensor._post_accumulate_grad_hooks is not after:
            tensor._post_accumulate_grad_hooks = after
        return said

    return undo


def _leave_graph(tensor: Tensor, leaf: bool) -> str | None:
    """Take a tensor out of the graph that an operation in place drew it into."""
    if leaf:
        try:
            tensor.detach_()
            return None
        except RuntimeError:  # a view
            pass
    return "drawn into another graph"


def refill(table: dict[Any, Any], kept: dict[Any, Any]) -> None:
    """Give a dict the items it had, in their order; nothing is written if it has them."""
    if len(table) == len(kept) and all(
        a is b and table[a] is kept[b] for a, b in zip(table, kept, strict=True)
    ):
        return
    table.clear()
    table.update(kept)
