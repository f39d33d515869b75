"""The operator that a compiled graph carries, so that a look sees into it without being compiled again.

Notable:
- `tap` gives nothing back and leaves the activation alone: while a flag is up, `keep` copies a few numbers of
  it, and of its gradient, into buffers that were there before. Its autograd kernel hangs a hook on the
  activation; what traces the graph runs that kernel and so finds the backward's operator too.
- Nothing in `keep` depends on data: where the flag is down it writes what is there already, so a CUDA graph
  may hold it. Where none is being captured, Python knows that the flag is down, and leaves at once.
- A compiled backward refuses saved tensors that were changed since, as by the backward of a second forward.
  So what is written goes around the count of changes, and the backward's operator, `peep`, does not declare
  that it changes its buffer; torch is told that it has an effect, or it would be left out.
- torch keeps compiled graphs on disk: who changes what an operator does must give it another name.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from functools import cache
from typing import Any, Protocol

import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.symbolic_convert import InstructionTranslator

from unvanish.probes.live.chart import POSITIONS, SAMPLES, UNITS, fit, thin
from unvanish.probes.live.guard import WatchGuard

CELLS = SAMPLES * POSITIONS * UNITS  # of a buffer; behind them the shape of what was copied, and its size
LENGTH, WIDTH = 16, 256  # steps of positions and units in the number that says the shape
ROOM = CELLS + 2
STRIDE = 4096  # numbers of taps that belong to one watch


class TapReader(Protocol):
    """Who looks at present through the taps of a flag."""

    guard: WatchGuard

    def take(self, x: Tensor, room: Tensor, flag: Tensor) -> None:
        """Copy a few numbers of a tensor into a buffer."""


class TapOwner(Protocol):
    """Who has put taps into a model."""

    flag: Tensor

    def meet(self, place: int, x: Tensor) -> None:
        """A graph is traced, and comes by a tap."""


raised: weakref.WeakValueDictionary[int, TapReader] = weakref.WeakValueDictionary()  # by address of the flag
maps: weakref.WeakValueDictionary[int, TapOwner] = weakref.WeakValueDictionary()  # by number

_FREE = (torch.Tag.flexible_layout,)  # any strides will do: no copy is made for us
_OPS: Any = torch.ops.unvanish


class Tap:
    """A module's forward hook; it acts only where it is compiled. A copy or a pickle of it does nothing.

    `place`: its number, or -1 if several modules share one graph. `free`: whether it reads half precision
    too, where a compiler that fuses operations rounds in other places if somebody reads in between.
    """

    def __init__(self, owner: TapOwner, place: int, free: bool) -> None:
        self.owner, self.flag, self.place, self.free = owner, owner.flag, place, free
        self.ahead = torch.zeros(ROOM, dtype=torch.float32, device=owner.flag.device)
        self.back = torch.zeros_like(self.ahead)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if (
            torch.compiler.is_dynamo_compiling()
            and not torch.compiler.is_exporting()
            and module.training
            and torch.is_grad_enabled()
            and isinstance(output, Tensor)
            and output.device == self.flag.device
            and (self.free or _is_precise(output))
            and _is_plain()
        ):
            torch.ops.unvanish.tap.default(output, self.ahead, self.back, self.flag, self.place)

    def __reduce__(self) -> Any:
        """A bound method of the standard library that takes anything and gives None."""
        return getattr, (contextlib.nullcontext(), "__exit__")


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _is_plain() -> bool:
    """Whether no transform and no branch is traced around us; the compiler asks, once for each tap."""
    try:
        tracer = InstructionTranslator.current_tx().output.current_tracer
        while tracer.parent is not None:
            if tracer.source_target is not torch.ops.higher_order.tag_activation_checkpoint:
                return False
            tracer = tracer.parent
        return torch._C._functorch.maybe_current_level() is None
    except Exception:
        return False


def _is_precise(x: Tensor) -> bool:
    return x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(x.device.type)


def copy_part(x: Tensor, room: Tensor, flag: Tensor) -> None:
    """Copy a few numbers of a tensor into a buffer (ROOM,), if the flag is up; no value is looked at."""
    part = thin(x.detach(), None)
    if part is None or not part.is_floating_point() or part.device != room.device:
        return
    cells = room.data  # its changes are not counted
    if part.dtype == torch.float64:
        part = part.float()
    own = fit(cells[:CELLS].view(SAMPLES, POSITIONS, UNITS), part.shape)
    torch.ops.aten.where.self_out(flag, part, own, out=own)
    shape = part.shape[0] + LENGTH * math.prod(part.shape[1:-1]) + WIDTH * part.shape[-1]
    cells[CELLS].masked_fill_(flag, shape)
    cells[CELLS + 1].masked_fill_(flag, x.numel())


def read_sizes(rooms: Tensor) -> Tensor:
    """Samples, positions, units, numbers in all of what lies in buffers (sites, ROOM), float64 (sites, 4)."""
    shape, count = rooms[:, CELLS].long(), rooms[:, CELLS + 1]
    return torch.stack([shape % LENGTH, shape % WIDTH // LENGTH, shape // WIDTH, count], 1).double()


def _keep(x: Tensor, room: Tensor, flag: Tensor) -> None:
    reader = raised.get(flag.data_ptr())
    if reader is not None:
        reader.guard.run(reader.take, x, room, flag)
    elif x.is_cuda and torch.cuda.is_current_stream_capturing():
        with contextlib.suppress(Exception):
            copy_part(x, room, flag)


def _tap(x: Tensor, ahead: Tensor, back: Tensor, flag: Tensor, place: int) -> None:
    _OPS.keep.default(x.detach(), ahead, flag)
    if not x.requires_grad:
        return
    owner = maps.get(place // STRIDE)
    if type(x).__name__ == "FakeTensor" and owner is not None:
        with contextlib.suppress(Exception):  # then there is no map
            owner.meet(place % STRIDE, x)
    x.register_hook(lambda g: _OPS.peep.default(g, back, flag))  # type: ignore[no-untyped-call]


def _tap_below(x: Tensor, ahead: Tensor, back: Tensor, flag: Tensor, place: int) -> None:
    _OPS.keep.default(x, ahead, flag)


def _nothing(*_: Any) -> None:
    return None


@cache
def define_operators() -> Any:
    """Make them known to torch, once; their library, which must be kept."""
    library: Any = torch.library.Library("unvanish", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema, work in (
        ("keep(Tensor x, Tensor(a!) room, Tensor flag) -> ()", _keep),
        ("peep(Tensor x, Tensor room, Tensor flag) -> ()", _keep),
        ("tap(Tensor x, Tensor(a!) ahead, Tensor back, Tensor flag, int place) -> ()", _tap_below),
    ):
        name = schema.partition("(")[0]
        library.define(schema, tags=_FREE)
        library.impl(name, work, "CompositeExplicitAutograd")
        torch.library.register_fake(f"unvanish::{name}", _nothing, lib=library)
    library.impl("tap", _tap, "Autograd")
    torch.fx.node.has_side_effect(_OPS.peep.default)
    # where a module is not compiled, its hook is not compiled by itself either
    torch._dynamo.eval_frame.skip_code(Tap.__call__.__code__)
    return library
