"""Tensors put back: their numbers bit for bit, their storage, version, gradient, flags, hooks and attributes.

Notable:
- Numbers are compared as bits, so that NaN and -0.0 count, and written only if they differ.
- A tensor that shares its storage, or does not fill it, is kept with the whole storage, once.
- Beyond LARGE bytes, what is no parameter or buffer is not copied, only summed up: if it was written to, the
  report says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Undo = Callable[[], str | None]  # may be called again; says what it could not put back, in a word or two

SMALL = 1 << 16  # bytes of a tensor that is copied with others
FEW = 1 << 12  # numbers that differ, up to which it is looked up whose they are
LARGE = 1 << 28  # bytes of a tensor or an array that is copied though it is no parameter or buffer
USUAL = (Tensor, nn.Parameter, nn.Buffer)
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
set_versions: Callable[[Any, Any], None] = torch._C._autograd._unsafe_set_version_counter
flatten: Callable[[list[Tensor]], Tensor] = torch._C._nn.flatten_dense_tensors
ONE_BY_ONE = torch.__version__.startswith("2.6")  # where the versions are set of one tensor at a time


class KeptTensors:
    """Tensors as they are now; `most`: bytes of a parameter or buffer whose numbers are copied, at most.

    Small ones are copied, and compared, all at once.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self.storages: set[int] = set()
        self.rows: list[tuple[Any, ...]] = []
        self.piles: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        self.numbers: list[tuple[Undo, Tensor]] = []

    def keep(self, tensor: Tensor, registered: bool, reached: list[Any]) -> None:
        """Keep a tensor; `reached` gets what it leads to: its gradient, attributes, hooks."""
        leaf = tensor.is_leaf
        gradient = tensor.grad if leaf else None
        hooks, after, attributes = tensor._backward_hooks, tensor._post_accumulate_grad_hooks, vars(tensor)
        own = dict(attributes) if attributes else None
        if gradient is not None:
            reached.append(gradient)
        if own or hooks or after:
            reached += [table for table in (own, hooks, after) if table]
        frozen = tensor.is_inference()
        version = None if frozen else tensor._version
        alias, place = None, None
        if _is_strided(tensor):
            alias = tensor.detach()
            place = (alias.untyped_storage(), alias.shape, alias.stride(), alias.dtype)
            self._keep_numbers(tensor, alias, place[0], registered, frozen)
        elif not is_lazy(tensor) and not tensor.is_meta and not self._keep_parts(tensor, reached):
            self.numbers.append((_copied(tensor), tensor))
        elif alias is None:
            alias = tensor.detach()
        self.rows.append(
            (
                tensor,
                alias,
                place,
                tensor.__class__,
                (tensor.requires_grad, leaf, tensor.grad_fn, gradient),
                (own, hooks, after),
                version,
            )
        )

    def _keep_parts(self, tensor: Tensor, reached: list[Any]) -> bool:
        parts = list(_parts(tensor))
        reached += parts
        return bool(parts)

    def _keep_numbers(
        self, tensor: Tensor, alias: Tensor, storage: Any, registered: bool, frozen: bool
    ) -> None:
        size, item = storage.nbytes(), alias.itemsize
        own = size == alias.numel() * item and item in BITS and alias.is_contiguous()
        if own and size <= SMALL and type(tensor) in USUAL and not frozen:
            self.piles.setdefault((alias.dtype, alias.device), []).append(alias)
            return
        if not own and storage._cdata in self.storages:
            return
        self.storages.add(storage._cdata)
        if own and not alias.is_quantized:
            bits = alias.view(BITS[item])
        else:
            bits = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
        large = size > (self.most if registered else min(self.most, LARGE))
        self.numbers.append((_summed(bits) if large else _numbers(bits, size, frozen), tensor))

    def list_steps(self) -> list[tuple[Undo, Any]]:
        """What puts the tensors back, and of which one it is: first what they are, then their numbers."""
        piles: list[tuple[Undo, Any]] = [(_pile(pile), None) for pile in self.piles.values() if pile]
        return [(self._put_back_rows, None), *self.numbers, *piles, (self._put_back_versions, None)]

    def _put_back_rows(self) -> str | None:
        said = [words for row in self.rows if (words := _put_back(*row)) is not None]
        return ", ".join(dict.fromkeys(said)) or None

    def _put_back_versions(self) -> None:
        for tensor, *_, version in self.rows:
            if version is not None and tensor._version != version:
                set_versions(*((tensor, version) if ONE_BY_ONE else ((tensor,), (version,))))


def _is_strided(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.is_meta:
        return False
    if type(tensor) in USUAL:
        return not tensor.is_nested
    return not (is_lazy(tensor) or tensor.is_nested or hasattr(tensor, "__tensor_flatten__"))


def _put_back(
    tensor: Tensor,
    alias: Tensor | None,
    place: tuple[Any, ...] | None,
    kind: type,
    graph: tuple[bool, bool, Any, Tensor | None],
    tables: tuple[Any, ...],
    version: int | None,
) -> str | None:
    """What belongs to a tensor itself: class, place in memory, graph, gradient, attributes, hooks."""
    said = None
    flag, leaf, node, gradient = graph
    own, hooks, after = tables
    if tensor.__class__ is not kind:
        tensor.__class__ = kind
    if tensor.grad_fn is not node:
        said = _leave_graph(tensor, leaf)
    if place is not None and alias is not None:
        storage, shape, stride, dtype = place
        if (
            tensor.untyped_storage()._cdata != storage._cdata
            or tensor.shape != shape
            or tensor.stride() != stride
            or tensor.dtype != dtype
        ):
            tensor.data = alias
    elif alias is not None and (is_lazy(tensor) or tensor.is_sparse or tensor.shape != alias.shape):
        tensor.data = alias
    if leaf and tensor.is_leaf:
        if tensor.requires_grad != flag:
            tensor.requires_grad_(flag)
        if tensor.grad is not gradient:
            tensor.grad = gradient
    now = vars(tensor)
    if now or own:
        refill_dict(now, own or {})
    if tensor._backward_hooks is not hooks:
        tensor._backward_hooks = hooks
    if tensor._post_accumulate_grad_hooks is not after:
        tensor._post_accumulate_grad_hooks = after
    return said


def _numbers(bits: Tensor, size: int, frozen: bool) -> Undo:
    """Puts back numbers through a view of the storage as whole numbers."""
    storage, kept = bits.untyped_storage(), bits.clone()

    def undo() -> None:
        if storage.nbytes() != size:
            storage.resize_(size)
        if not torch.equal(bits, kept):
            with torch.inference_mode() if frozen else nullcontext():
                bits.copy_(kept)

    return undo


def _pile(pile: list[Tensor]) -> Undo:
    """The same for small tensors that each fill their storage."""
    kept = flatten(pile) if len(pile) > 1 else flatten(pile).clone()  # of one it is a view
    bits = BITS[kept.itemsize]
    sizes = [x.numel() for x in pile]
    storages = [(x.untyped_storage(), x.numel() * x.itemsize) for x in pile]

    def undo() -> None:
        for storage, size in storages:
            if storage.nbytes() != size:
                storage.resize_(size)
        now = flatten(pile).view(bits)
        if torch.equal(now, kept.view(bits)):
            return
        differs = now != kept.view(bits)
        old = torch.split(kept, sizes)
        if int(differs.sum()) <= FEW:
            ends = torch.tensor(sizes, device=kept.device).cumsum(0)
            places = {*torch.searchsorted(ends, differs.nonzero().view(-1), right=True).tolist()}
        else:
            places = {i for i, part in enumerate(torch.split(differs, sizes)) if bool(part.any())}
        for i in places:
            pile[i].view(-1).copy_(old[i])

    return undo


def _summed(bits: Tensor) -> Undo:
    total, size = _sum(bits), bits.untyped_storage().nbytes()

    def undo() -> str | None:
        same = bits.untyped_storage().nbytes() == size and _sum(bits) == total
        return None if same else f"written to, and too large to be copied ({size >> 20:,} MB)"

    return undo


def _sum(bits: Tensor) -> int:
    return int(bits.sum(dtype=torch.int64))


def _copied(tensor: Tensor) -> Undo:
    """For tensors of other layouts: copied, and written back."""
    kept, version = tensor.detach().clone(), tensor._version

    def undo() -> None:
        if tensor._version != version:
            tensor.detach().copy_(kept)

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


def _leave_graph(tensor: Tensor, leaf: bool) -> str | None:
    """Take a tensor out of the graph that an operation in place drew it into."""
    if leaf:
        try:
            tensor.detach_()
            return None
        except RuntimeError:  # a view
            pass
    return "drawn into another graph"


def refill_dict(table: Any, kept: dict[Any, Any]) -> None:
    """Give a dict of any kind the items it had, in their order; nothing is written if it has them."""
    if (
        len(table) == len(kept)
        and all(map(is_, table, kept))
        and all(map(is_, _values(table), kept.values()))
    ):
        return
    base: Any = OrderedDict if isinstance(table, OrderedDict) else dict
    base.clear(table)
    for key, value in kept.items():
        base.__setitem__(table, key, value)


def _values(table: dict[Any, Any]) -> Iterable[Any]:
    return dict.values(table) if type(table) is not OrderedDict else table.values()
