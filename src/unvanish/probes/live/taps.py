"""The operator that a compiled graph carries, so that a look sees into it without being compiled again.

Notable:
- `tap` gives nothing back and leaves the activation alone: while a flag is up, `keep` copies a few numbers of
  it, and of its gradient, into buffers that were there before. Its autograd kernel hangs a hook on the
  activation; what traces the graph runs that kernel and so finds the backward's `keep` too.
- Nothing in `keep` depends on data: where the flag is down it writes what is there already, so a CUDA graph
  may hold it. Where none is being captured, Python knows that the flag is down, and leaves at once.
- A compiled backward refuses saved tensors that were changed since. What `keep` writes goes around the count
  of changes; a backend that copies changed inputs back by itself is "tied": there the gradient is multiplied
  by one, a number that the copying gives, and nothing is declared as changed.
- torch keeps compiled graphs on disk: who changes what an operator does must give it another name.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unvanish.probes.live.chart import POSITIONS, SAMPLES, UNITS, fit, thin
from unvanish.probes.live.guard import WatchGuard

CELLS = SAMPLES * POSITIONS * UNITS  # of a buffer; behind them the shape of what was copied, and its size
LENGTH, WIDTH = 16, 256  # steps of positions and units in the number that says the shape
ROOM = CELLS + 2
STRIDE = 4096  # numbers of taps that belong to one watch


class TapOwner(Protocol):
    """A watch whose taps are in a compiled graph."""

    guard: WatchGuard

    def take(self, x: Tensor, room: Tensor, flag: Tensor) -> None:
        """Copy a few numbers of a tensor into a buffer."""

    def meet(self, place: int, x: Tensor) -> None:
        """A graph is traced, and comes by a tap."""

raised: weakref.WeakValueDictionary[int, TapOwner] = weakref.WeakValueDictionary()  # by address of the flag
owners: weakref.WeakValueDictionary[int, TapOwner] = weakref.WeakValueDictionary()  # by number

_FREE = (torch.Tag.flexible_layout,)  # any strides will do: no copy is made for us
_OPS: Any = torch.ops.unvanish


class Tap:
    """A module's forward hook; it acts only where it is compiled. A copy or a pickle of it does nothing.

    `place`: its number, or -1 if several modules share one graph. `exact`: whether its module's output lies in
    memory anyway, so that reading it changes no rounding.
    """

    def __init__(self, flag: Tensor, device: torch.device, place: int, exact: bool, tied: bool) -> None:
        self.flag, self.place, self.exact, self.tied = flag, place, exact, tied
        self.ahead = torch.zeros(ROOM, dtype=torch.float32, device=device)
        self.back = torch.zeros_like(self.ahead)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_dynamo_compiling() and module.training and torch.is_grad_enabled():
            if isinstance(output, Tensor) and (self.exact or output.dtype == torch.float32):
                torch.ops.unvanish.tap.default(output, self.ahead, self.back, self.flag, self.place, self.tied)

    def __reduce__(self) -> Any:
        """A bound method of the standard library that takes anything and gives None."""
        return getattr, (contextlib.nullcontext(), "__exit__")


def copy_part(x: Tensor, room: Tensor, flag: Tensor) -> None:
    """Copy a few numbers of a tensor into a buffer (ROOM,), if the flag is up; no value is looked at."""
    part = thin(x.detach(), None)
    if part is None or not part.is_floating_point() or part.device != room.device:
        return
    cells = room.data  # its changes are not counted
    if part.dtype == torch.float64:
        part = part.float()
    own = fit(cells[:CELLS].view(SAMPLES, POSITIONS, UNITS), part.shape)
    torch.where(flag, part, own, out=own)
    shape = part.shape[0] + LENGTH * math.prod(part.shape[1:-1]) + WIDTH * part.shape[-1]
    cells[CELLS].masked_fill_(flag, shape)
    cells[CELLS + 1].masked_fill_(flag, x.numel())


def read_sizes(rooms: Tensor) -> Tensor:
    """Samples, positions, units, numbers in all of what lies in buffers (sites, ROOM), float64 (sites, 4)."""
    shape, count = rooms[:, CELLS].long(), rooms[:, CELLS + 1]
    return torch.stack([shape % LENGTH, shape % WIDTH // LENGTH, shape // WIDTH, count], 1).double()


def _keep(x: Tensor, room: Tensor, flag: Tensor) -> None:
    owner = raised.get(flag.data_ptr())
    if owner is not None:
        owner.guard.run(owner.take, x, room, flag)
    elif x.is_cuda and torch.cuda.is_current_stream_capturing():
        with contextlib.suppress(Exception):
            copy_part(x, room, flag)


def _note(x: Tensor, room: Tensor, flag: Tensor) -> Tensor:
    _keep(x, room, flag)
    return x.new_ones(())


def _tap(x: Tensor, ahead: Tensor, back: Tensor, flag: Tensor, place: int, tied: bool) -> None:
    _OPS.keep.default(x.detach(), ahead, flag)
    if not x.requires_grad:
        return
    if type(x).__name__ == "FakeTensor" and (owner := owners.get(place // STRIDE)) is not None:
        owner.guard.run(owner.meet, place % STRIDE, x)
    if tied:
        x.register_hook(lambda g: g * _OPS.note.default(g, back, flag))  # type: ignore[no-untyped-call]
    else:
        x.register_hook(lambda g: _OPS.keep.default(g, back, flag))  # type: ignore[no-untyped-call]


def _tap_below(x: Tensor, ahead: Tensor, back: Tensor, flag: Tensor, place: int, tied: bool) -> None:
    _OPS.keep.default(x, ahead, flag)


def _nothing(*_: Any) -> None:
    return None


def _one(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(())


@cache
def define_operators() -> Any:
    """Make them known to torch, once; their library, which must be kept."""
    library = torch.library.Library("unvanish", "FRAGMENT")  # noqa: TOR901
    for schema, work, fake in (
        ("keep(Tensor x, Tensor(a!) room, Tensor flag) -> ()", _keep, _nothing),
        ("note(Tensor x, Tensor room, Tensor flag) -> Tensor", _note, _one),
        (
            "tap(Tensor x, Tensor(a!) ahead, Tensor back, Tensor flag, int place, bool tied) -> ()",
            _tap_below,
            _nothing,
        ),
    ):
        name = schema.partition("(")[0]
        library.define(schema, tags=_FREE)
        library.impl(name, work, "CompositeExplicitAutograd")
        torch.library.register_fake(f"unvanish::{name}", fake, lib=library)
    library.impl("tap", _tap, "Autograd")
    return library
