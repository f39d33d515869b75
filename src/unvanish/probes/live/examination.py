"""An examination of one real step: the user's own forward and backward, read as `check` reads its own.

Notable:
- A function mode is on from the first call of the model, or of a part of it, to the backward; hooks on the
  nodes of the graph read what passes. Nothing runs twice, and nothing is different for it.
- A backward that gives the model nothing may belong to another one: the next is waited for, and if none
  comes in the step, this one counts.
- Where it cannot be made, it says why (`trouble`), and is gone.
"""

from __future__ import annotations

import math
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from unvanish.core.trace import Trace
from unvanish.probes import calls
from unvanish.probes.compositions import Unfolded
from unvanish.probes.errors import CheckError
from unvanish.probes.layers import name_modules
from unvanish.probes.live.backwards import Unhandled
from unvanish.probes.live.compiled import CompilerListener, HookSilence, has_compiled_parts
from unvanish.probes.live.guard import WatchEntry, WatchGuard
from unvanish.probes.live.place import find_call, find_size
from unvanish.probes.live.readable import find_obstacle, is_number
from unvanish.probes.live.witness import Witness
from unvanish.probes.modes import is_overridden, lies_on_stack, push_mode, remove_mode
from unvanish.probes.passes import AS_IT_RUNS, ForwardPass, Specimen
from unvanish.probes.real_step import RealStep, is_broken
from unvanish.probes.record import measure_sizes, read_specimen

# in evaluation they choose a fused path, unless a function mode is on
FUSED_IN_EVALUATION = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
FORWARDS = 16  # of the model, before one backward


class Examination:
    """One step examined: `open` before its forward, `hear` and `end` around its backwards, `close` after it.

    `trace`: what was seen. `trouble`: why nothing was; `final`: nor will be. `broken`: whether a gradient was
    not finite.
    """

    def __init__(self, model: nn.Module, guard: WatchGuard) -> None:
        self.model, self.guard = model, guard
        self.trace: Trace | None = None
        self.trouble = ""
        self.final = self.broken = False
        self.seconds = 0.0  # our own
        self.size = 0  # numbers of a sample of the batch, 0 if unknown
        self._unreached: Trace | None = None  # of a backward that gave the model nothing
        self._optimizers: tuple[weakref.ref[Any], ...] = ()
        self._loss: Any = None
        self._paths: set[int] = set()
        self._witness: Witness | None = None
        self._specimen: Specimen | None = None
        self._call: calls.Call | None = None
        self._entering: dict[str, dict[str, float]] = {}
        self._step: RealStep | None = None  # while its backward runs
        self._looks: list[Callable[..., Any]] = []
        self._outer: nn.Module | None = None  # the module whose call is the forward, or a part of it
        self._frame: FrameType | None = None  # of that call
        self._depth = self._forwards = 0
        self._thread = 0
        self._aside: list[int] = []  # modules around us that must run without the function mode
        self._handles: list[Any] = []
        self._unfolded, self._unhandled = Unfolded(), Unhandled()
        self._on = False  # the function mode
        self._stale: list[Witness] = []  # could not be taken off, as they were at work
        self._compiler = CompilerListener(WatchEntry(guard, self._hear_compiler))

    # -- opening and closing

    def open(self, optimizers: tuple[weakref.ref[Any], ...], loss: Any) -> None:
        """Wait for the forward of the step that begins; it keeps no optimizer alive."""
        self.close()
        self.trace = self._unreached = None
        self.trouble, self.broken = "", False
        self._optimizers, self._loss = optimizers, loss
        self._paths = {id(m) for _, m in name_modules(self.model)}
        self._attach()

    def close(self) -> None:
        """End it, whatever it waits for; harmless when repeated."""
        self.settle()
        self._drop()
        if self.trace is None:
            self.trace = self._unreached
        self._unreached = self._loss = None
        self._optimizers = ()

    def remove(self) -> None:
        """Detach everything for good."""
        try:
            self.close()
        finally:
            self._compiler.remove()

    def __del__(self) -> None:
        try:  # noqa: SIM105 - when the interpreter ends, what was imported may be gone
            self.remove()
        except Exception:
            pass

    @property
    def waiting(self) -> bool:
        """Whether it waits for a forward or a backward."""
        return bool(self._handles) or self._witness is not None

    def _attach(self) -> None:
        enter, leave = (
            WatchEntry(self.guard, self._enter),
            WatchEntry(self.guard, self._leave, always=True),
        )
        self._handles.append(HookSilence())
        self._handles.append(register_module_forward_pre_hook(enter))
        self._handles.append(register_module_forward_hook(leave, always_call=True))

    def _drop(self) -> None:
        """Forget the present recording; what hangs somewhere comes off."""
        try:
            while self._handles:
                self._handles[-1].remove()
                self._handles.pop()
        finally:
            self._forget()

    def _forget(self) -> None:
        """Forget the present recording; the hooks of modules stay."""
        try:
            if self._step is not None:
                self._step.remove()
        finally:
            self._leave_modes()
            self._witness = self._specimen = self._call = self._step = None
            self._outer = self._frame = None
            self._looks = []
            self._depth = self._forwards = 0

    def _leave_modes(self) -> None:
        """The function mode goes; in another thread it stays where it is, and does nothing any more."""
        witness = self._witness
        if witness is None or not self._on:
            return
        try:
            witness.trouble = witness.trouble or "the examination is over"
            off = self._thread == threading.get_ident() and remove_mode(witness)
            self._stale += [] if off or self._aside else [witness]
        finally:
            self._unfolded.close()
            self._unhandled.close()
        self._on, self._aside = False, []

    def settle(self) -> None:
        """Take off what could not be taken off before; not while an operation runs."""
        if self._stale and self._thread == threading.get_ident():
            self._stale = [w for w in self._stale if not remove_mode(w)]  # one at work is off meanwhile

    def _give_up(self, why: str) -> None:
        self.trouble = why
        self._drop()

    def _hear_compiler(self, *_: Any) -> None:
        """A part of the program is compiled: it must not meet us."""
        if self.waiting:
            self.final = True
            self._give_up("parts of the program are compiled")

    # -- the forward

    def _enter(self, module: nn.Module, args: Any) -> None:
        if type(module).__name__ == "OptimizedModule" and id(module._orig_mod) in self._paths:
            self._hear_compiler()  # before it begins to compile
        if id(module) not in self._paths or is_in_backward():
            return
        self.settle()
        if self._witness is not None and module is self._outer and not self._is_running():
            self._forget()  # interrupted, so that nobody told us that it ended
        if self._witness is None and module.training and torch.is_grad_enabled():
            self._begin(module, args)
        witness = self._witness
        if witness is None or self._thread != threading.get_ident():
            return
        if not self._depth:
            witness.in_loss = False
            self._outer, self._frame = module, find_call()
            self._forwards += 1
            if self._forwards > FORWARDS:
                self._give_up(f"the model runs more than {FORWARDS} times before the backward")
                return
        self._depth += 1
        witness.enter(module, args)
        if not module.training and isinstance(module, FUSED_IN_EVALUATION):
            self._step_aside(module)

    def _begin(self, module: nn.Module, args: Any) -> None:
        began = perf_counter()
        obstacle = find_obstacle() or ("a function mode is on around the model" if is_overridden() else "")
        obstacle = obstacle or ("a part of it is compiled" if has_compiled_parts(self.model) else "")
        if obstacle:
            self._give_up(obstacle)
            return
        frame = find_call()
        kwargs = {} if frame is None else frame.f_locals.get("kwargs")
        call = calls.describe(args, kwargs if isinstance(kwargs, dict) else {})
        optimizer = join_optimizers([o for ref in self._optimizers if (o := ref()) is not None])
        try:
            specimen = read_specimen(self.model, (call.args, call.kwargs), self._loss, optimizer=optimizer)
        except CheckError as error:
            self._give_up(str(error))
            return
        specimen = measure_sizes(replace(specimen, manner=AS_IT_RUNS))
        self._compiler.listen()
        witness = Witness(self.guard, specimen, call)
        self.size = find_size(args, frame)
        self._specimen, self._call, self._thread = specimen, call, threading.get_ident()
        self._entering = {name: witness.entering(name, x) for name, x in call.originals.items()}
        self._witness, self._on = witness, True
        self._unfolded.open()
        self._unhandled.open()
        push_mode(witness)
        self.seconds += perf_counter() - began

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        witness = self._witness
        if witness is None or id(module) not in self._paths or is_in_backward():
            return
        if self._thread != threading.get_ident():
            return
        if self._aside and self._aside[-1] == id(module):
            self._step_in(witness)
        if (
            output is None and module is self._outer
        ):  # it raised, or gives nothing; torch goes through its hooks
            self._forget()
            return
        witness.leave(module, args, output)
        self._depth -= 1
        if module is self._outer or self._depth <= 0:
            self._depth = 0
            witness.start_loss()

    def _is_running(self) -> bool:
        """Whether the call that is recorded is still on its way; only its own thread can tell."""
        if self._frame is None or self._thread != threading.get_ident() or not self._depth:
            return True
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is not None

    def _step_aside(self, module: nn.Module) -> None:
        if self._witness is not None and (self._aside or lies_on_stack(self._witness)):
            self._aside.append(id(module))
            remove_mode(self._witness)

    def _step_in(self, witness: Witness) -> None:
        self._aside.pop()
        if not self._aside:
            push_mode(witness)

    # -- the backward

    def hear(self, roots: Any, chosen: bool, scale: int) -> None:
        """A backward begins; `chosen`: for some tensors only; `scale`: log2 of its loss scale."""
        witness, specimen, call = self._witness, self._specimen, self._call
        if witness is None or specimen is None or call is None or self._thread != threading.get_ident():
            return
        began = perf_counter()
        while self._handles:
            self._handles.pop().remove()
        root = find_root(roots)
        trouble = witness.trouble or (
            "" if root is not None and not chosen else "the loss is no single number"
        )
        trouble = trouble or find_obstacle()
        if trouble or root is None or self._depth:
            self._give_up(trouble or "the backward runs within the forward")
            return
        self._leave_modes()
        witness.small.settle()
        forward = ForwardPass(call, witness, self._entering, None, root, "loss")
        self._step = RealStep(specimen, forward, self._hang, scale)
        self.seconds += perf_counter() - began

    def _hang(self, register: Callable[..., Any], look: Callable[..., Any]) -> Any:
        self._looks.append(look)
        return register(WatchEntry(self.guard, self._see, len(self._looks) - 1))

    def _see(self, number: int, *gradients: Any) -> None:
        """A gradient passes a node."""
        if number < len(self._looks) and not find_obstacle():
            self._looks[number](*gradients)

    def end(self, failed: bool) -> None:
        """The backward has ended."""
        step, witness = self._step, self._witness
        if step is None or witness is None:
            return
        began = perf_counter()
        if failed:
            self._drop()
            self._attach()
            return
        trace, flow = step.finish()
        reaches = step.reaches or any(g is not None for g in flow.gradients.values())
        self.broken = is_broken(flow) or not math.isfinite(trace.facts["loss"])
        self.seconds += witness.seconds + perf_counter() - began
        self._drop()
        if reaches:
            self.trace = trace
        else:
            self._unreached = trace
            self._attach()


def is_in_backward() -> bool:
    """Whether a backward calls us, as when a checkpoint runs its part of the model again."""
    return torch._C._current_graph_task_id() != -1


def find_root(roots: Any) -> Tensor | None:
    """The one number that a backward begins at; None if it begins elsewhere."""
    some: Sequence[Any] = (roots,) if isinstance(roots, Tensor) else tuple(roots)
    if len(some) != 1 or not isinstance(some[0], Tensor) or not is_number(some[0]):
        return None
    return some[0] if some[0].grad_fn is not None else None


@dataclass(frozen=True)
class ManyOptimizers:
    """Several optimizers as one, for what asks which parameters are held."""

    param_groups: list[Any] = field(default_factory=list)


def join_optimizers(optimizers: Sequence[Any]) -> Any:
    """One that holds what several hold; None without any."""
    if len(optimizers) < 2:
        return optimizers[0] if optimizers else None
    return ManyOptimizers([group for o in optimizers for group in o.param_groups])
