"""The record of a forward that is not ours: a function mode that changes nothing and reads afterwards.

Notable:
- `check` runs a model without dropout; here every operation runs as it is, and is read when it has returned.
- What lies between the model's forward and the backward belongs to the loss. A tensor that the loss is given
  and nothing in it made is a target.
- What saved tensors are packed into, as by checkpoints, may be unpacked once: it is left to the backward.
"""

from __future__ import annotations

import sys
from time import perf_counter
from types import FrameType
from typing import Any

import torch
import torch.utils.checkpoint as checkpoint
from torch import Tensor

from unvanish.probes import operations, signatures
from unvanish.probes.altered import ALTERED, alter
from unvanish.probes.calls import Call, tensors_in
from unvanish.probes.departures import Departures
from unvanish.probes.events import OperationCall
from unvanish.probes.forward import SWITCHES, VALUED, Forward, next_number
from unvanish.probes.lines import find_line
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.readable import find_obstacle, is_readable
from unvanish.probes.loss_calls import LossCalls
from unvanish.probes.passes import Specimen

MOST = 20_000  # operations of a step that is examined
FRAMES = 16  # between a checkpoint and the switch that it turns
OWN = 512  # tensors that a loss makes and that are kept


class Witness(Forward):
    """The forward of a step, as the function mode sees it; `seconds`: our own."""

    def __init__(self, guard: WatchGuard, specimen: Specimen, call: Call) -> None:
        super().__init__(
            specimen.model,
            call.batch_size,
            specimen.parameters,
            specimen.norms,
            specimen.modules,
            specimen.omissions,
        )
        self.alters = False
        self._finite = all(p.device.type == "cpu" for p in specimen.parameters.values())
        self._grad = grad = [
            True
        ]  # whether gradients are on in the program; a cycle would keep the graph alive
        self.is_grad_on = lambda: grad[0]
        self.loss_calls = self._loss_calls = StepLossCalls(call.batch_size, self.departures)
        self.guard = guard
        self.seconds = 0.0
        self.trouble = ""  # why the step cannot be examined after all

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.compiler.is_compiling():  # the compiler reads this, and finds nothing
            return func(*args, **(kwargs or {}))
        start = self.guard.run(next_number)
        result = func(*args, **(kwargs or {}))
        self.guard.run(self._witness, func, args, kwargs or {}, start, result)
        return result

    def _witness(self, func: Any, args: Any, kwargs: Any, start: int, result: Any) -> None:
        """An operation has returned."""
        if self.trouble:
            return
        began = perf_counter()
        self.trouble = find_obstacle()
        if not self.trouble and len(self.operations) > MOST:
            self.trouble = f"a step makes more than {MOST:,} operations"
        if not self.trouble:
            self._grad[0] = torch.is_grad_enabled()
            try:
                with torch.no_grad():
                    self._look(func, args, kwargs, start, result)
            except Exception as error:
                self.gaps = True
                name = getattr(func, "__name__", "")
                self.omissions.note(f"the operation {name}", self.running.path, error)
        self.seconds += perf_counter() - began

    def _look(self, func: Any, args: Any, kwargs: Any, start: int, result: Any) -> None:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            value = getattr(func.__self__, "__name__", "")
            if value in VALUED and isinstance(result, Tensor):
                self._take_value(value, args, result)
            return
        if name in SWITCHES:
            self._switch(func, name, args, kwargs)
            if name == "_set_grad_enabled" and not args[0] and is_checkpointing():
                self.departures.off = ("checkpoint", self.running.path, find_line())
        kind = operations.plain_name(name)
        if kind in ALTERED and not self.in_loss:
            self.dropouts.see(kind, signatures.bind(kind, args, kwargs), self.running)
        if kind == "hardtanh":
            kind, _, _ = alter(kind, args, kwargs)
        call = OperationCall(kind, args, kwargs, start)
        call.result = result
        if self.in_loss:
            self._loss_calls.meet(call)
        self.check_finite = self._finite and all(map(is_readable, tensors_in((args, result), 3)))
        count = len(self.operations)
        self._read(call)
        if len(self.operations) > count and is_packing():
            self.operations[-1].handles["packed"] = True


class StepLossCalls(LossCalls):
    """The calls of a loss whose targets nobody named."""

    def __init__(self, batch: int | None, departures: Departures) -> None:
        super().__init__(batch)
        self._departures = departures
        self._made: dict[int, Tensor] = {}  # without a gradient, in the loss

    def meet(self, call: OperationCall) -> None:
        """Find the targets among what a call was given, before it is read."""
        given = [t for t in tensors_in(call.given, 2) if not t.requires_grad]
        fresh = [t for t in given if id(t) not in self._made and not self._departures.carries(t)]
        if len(self.targets) < OWN:
            self.add_targets(fresh)
        made = [t for t in tensors_in(call.result, 2) if not t.requires_grad and id(t) not in self.targets]
        if len(self._made) < OWN:
            self._made.update({id(t): t for t in made})


def is_packing() -> bool:
    """Whether hooks of the program pack what the graph saves now; torch before 2.8 does not say."""
    find = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return find is None or find(False) is not None


def is_checkpointing() -> bool:
    """Whether a re-entrant checkpoint has turned gradients off just now."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(FRAMES):
        if frame is None:
            break
        if frame.f_code.co_name == "forward" and frame.f_code.co_filename == checkpoint.__file__:
            return True
        frame = frame.f_back
    return False
