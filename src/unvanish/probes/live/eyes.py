"""The eyes of a watched training: one forward and backward looked at, a block of numbers out.

Notable:
- Between looks nothing is attached anywhere, and nothing ever on the model itself. For a look, global module
  hooks know where the forward is (`place`) and a torch function mode sees functional activations and
  attention; both are gone when the forward has ended, the tensor hooks go with the graph, and the last hook
  goes with the step.
- The first look maps the network: the dominators of its graph are the depth axis; they, the activations and
  the attentions become the sites (`chart`). Later looks only copy a few evenly spaced numbers of each
  (`samples`).
- Only forwards in training mode with gradients, whose result has one, count, and of these the first one of a
  step, in one thread.
- What must run without us runs without us: compiled parts, `torch.func` transforms, dispatch modes, the fused
  paths of frozen transformer layers.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.compositions import Unfolded
from unvanish.probes.layers import name_modules
from unvanish.probes.live.batch_rows import read_rows
from unvanish.probes.live.chart import Chart, Crossing, Slot, draw_chart
from unvanish.probes.live.compiled import CompilerListener, HookSilence
from unvanish.probes.live.guard import WatchEntry, WatchGuard
from unvanish.probes.live.kinds import find_kind, may_matter
from unvanish.probes.live.place import ForwardPlace, find_call, find_input
from unvanish.probes.live.readable import find_obstacle, is_readable
from unvanish.probes.live.routing import CHOICES, read_load
from unvanish.probes.live.samples import Samples
from unvanish.probes.live.sequences import Sequences
from unvanish.probes.live.sharpness import measure_log_z, pick_logits, sharpness
from unvanish.probes.modes import is_overridden, lies_on_stack, push_mode, remove_mode
from unvanish.probes.recurrent.profile import Profile

RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
# in evaluation they choose a fused path, unless a function mode is on
FUSED_IN_EVALUATION = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


class Eyes(TorchFunctionMode):
    """Looks at a training step: `open` before its forward, `close` after its optimizer's step.

    `guard`: what every call from the program passes. `after_backward`: called when each backward of the step
    has ended.
    """

    SEES_INSIDE = True  # compositions of torch.nn.functional are unfolded for it

    def __init__(
        self, model: nn.Module, guard: WatchGuard, after_backward: Callable[..., None] | None = None
    ) -> None:
        super().__init__()
        self.model, self.after_backward, self._guard = model, after_backward, guard
        self.paths = {id(m): name for name, m in name_modules(model)}
        self.entry = model  # the module whose call is the forward: the model, or what a wrapper calls of it
        self._called: dict[str, nn.Module] = {}  # parts that were called while the entry was not
        self.chart: Chart | None = None
        self.seconds = 0.0  # our own, of the present look
        self.size = 0  # numbers of a sample that the last forward was given; 0 if unknown
        self.rows: Tensor | None = None  # some numbers of its samples
        self.count = 0  # samples of it
        self.compiled = False  # whether a part of the model was compiled while we looked
        self._place = ForwardPlace()
        self._crossings: list[Crossing] | None = None  # of the forward that maps the network
        self._samples = Samples({})
        self._sequences = Sequences()
        self._inside = False  # whether the forward that is looked at runs now
        self._done = False  # whether it has run
        self._ending = False  # whether it is to end as soon as its thread allows
        self._working = 0  # functions that the function mode handles now, during which torch has it off
        self._thread = 0  # that runs it
        self._frame: Any = None  # of the model's call
        self._aside: list[int] = []  # ids of the modules around us that must run without the function mode
        self._handles: list[Any] = []
        self._compositions = Unfolded()  # open during the forward
        self._compiler = CompilerListener(WatchEntry(guard, self._hear_compiler))

    # -- opening and closing

    def open(self, profiling: bool) -> None:
        """Attach what a look needs; the next forward in training mode is looked at.

        `profiling`: follow the time steps of fused recurrent layers too.
        """
        started = perf_counter()
        self._done, self.rows = False, None
        self._samples.clear()
        self._sequences.begin(profiling)
        if not self._inside:
            self._detach()
            enter, leave = (
                WatchEntry(self._guard, self._enter),
                WatchEntry(self._guard, self._leave, always=True),
            )
            self._handles.append(HookSilence())
            self._handles.append(register_module_forward_pre_hook(enter))
            self._handles.append(register_module_forward_hook(leave, always_call=True))
        self.seconds = perf_counter() - started

    def close(self) -> None:
        """End the look; harmless when repeated. A forward that cannot be left now is left when it returns."""
        if self._inside and not self._can_end():
            self._ending = True
            return
        if self._inside:
            self._end()
        self._detach()
        self._crossings = None
        if self._called and not self._done and self.chart is None:
            self._follow()

    def _follow(self) -> None:
        """The model itself is not called: from now on the largest part that is called is looked at."""
        called, self._called = self._called, {}
        path = max(called, key=lambda name: sum(p.numel() for p in called[name].parameters()))
        self.entry = called[path]
        self._guard.note(f"the model itself was not called, so of its parts {path} is looked at")

    def __del__(self) -> None:
        try:  # noqa: SIM105 - when the interpreter ends, what was imported may be gone
            self.remove()
        except Exception:
            pass

    def remove(self) -> None:
        """Detach everything for good."""
        try:
            self.close()
        finally:
            self._compiler.remove()

    def _can_end(self) -> bool:
        """Whether the function mode is where it can be taken off: in this thread, and not at work."""
        return self._thread == threading.get_ident() and not self._working

    def _detach(self) -> None:
        while self._handles:
            self._handles[-1].remove()
            self._handles.pop()

    # -- the forward

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self.paths.get(id(module))
        if path is None:
            if type(module).__name__ == "OptimizedModule" and id(module._orig_mod) in self.paths:
                self._leave_out()
            return
        if module is self.entry and self._inside and not self._is_running():
            self._end()  # interrupted, so that nobody told us that it ended
        if not self._inside:
            if not module.training or self._done or not torch.is_grad_enabled():
                return
            if module is self.entry:
                self._begin(args)
            elif self.chart is None and not any(path.startswith(f"{known}.") for known in self._called):
                self._called[path] = module
        elif module is self.entry and self._thread == threading.get_ident():
            self._place.depth += 1
        if self._inside and self._thread == threading.get_ident():
            self._place.stack.append(path)
            if not module.training and isinstance(module, FUSED_IN_EVALUATION):
                self._step_aside(module)

    def _begin(self, args: Any) -> None:
        obstacle = find_obstacle() or ("a function mode is on around them" if is_overridden() else "")
        if obstacle:
            self._guard.note(f"activations were not looked at: {obstacle}")
            return
        self._compiler.listen()
        first = next((t for t in tensors_in(args, 2) if is_readable(t) and t.ndim), None)
        self._samples.batch = None if first is None else int(first.shape[0])
        self._place.begin()
        self._place.depth = 1
        self._crossings = [] if self.chart is None else None
        self._thread, self._frame, self._ending = threading.get_ident(), find_call(), False
        given = find_input(args, self._frame)
        self.count = 0 if given is None else len(given)
        self.size = 0 if given is None else given.numel() // self.count
        self.rows = read_rows(given)
        self._inside = True
        self._compositions.open()
        push_mode(self)

    def _end(self) -> None:
        """The function mode goes; whatever fails here, the rest goes too."""
        try:
            remove_mode(self)
        finally:
            self._compositions.close()
        self._inside, self._frame, self._aside = False, None, []

    def _is_running(self) -> bool:
        """Whether the call that is looked at is still on its way; only its own thread can tell."""
        if self._frame is None or self._thread != threading.get_ident():
            return True
        frame: Any = sys._getframe()
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is not None

    def _step_aside(self, module: nn.Module) -> None:
        if self._aside or lies_on_stack(self):
            self._aside.append(id(module))
            remove_mode(self)

    def _step_in(self) -> None:
        self._aside.pop()
        if not self._aside:
            push_mode(self)

    def _hear_compiler(self, *_: Any) -> None:
        """A part of the model is compiled: it must not meet us, neither now nor later."""
        if not self._inside or self._thread != threading.get_ident():
            return
        self._leave_out()

    def _leave_out(self) -> None:
        self.compiled = self._done = True
        self._guard.note("activations are not looked at: the model, or a part of it, is compiled")
        self.close()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        path = self.paths.get(id(module))
        if path is None or not self._inside or self._thread != threading.get_ident():
            return
        if self._aside and self._aside[-1] == id(module):
            self._step_in()
        ending = self._ending or bool(self._guard.failure)
        if not ending:
            self._place.leave(path)
            self._meet_module(module, path, args, output)
        if module is self.entry:
            self._place.depth -= 1
            if self._place.depth <= 0:
                self._end()
                ends = [t for t in tensors_in(output, 2) if t.grad_fn is not None]
                if ending or ends:  # if it raised, torch goes through its hooks right now
                    self._detach()
                if ends and not ending:
                    self._finish(ends)

    def _meet_module(self, module: nn.Module, path: str, args: Any, output: Any) -> None:
        """A module has returned: its result may be a site."""
        if find_obstacle():
            return
        if self._sequences.wanted and type(module) in RECURRENT:
            started = perf_counter()
            self._sequences.follow(self._guard, module, path, args, output)
            self.seconds += perf_counter() - started
        made = next((t for t in tensors_in(output, 1) if t.is_floating_point()), None)
        if made is None or not is_readable(made) or not made.ndim:
            return
        if not isinstance(module, (nn.Flatten, nn.Identity, nn.Dropout)):
            self._meet(path, type(module).__name__, made, "module")

    def _finish(self, ends: Sequence[Tensor]) -> None:
        """The forward has ended, the hooks are gone; the backward will come by the tensors' own."""
        crossings, self._crossings = self._crossings, None
        started = perf_counter()
        self._done = True
        if crossings is not None:
            self.chart = draw_chart(crossings, ends[0].grad_fn)
            self._samples = Samples(self.chart.slots)
            self._samples.last = self.chart.axis.sites[0] if self.chart.axis is not None else None
        else:
            self._samples.log_z = measure_log_z(ends[0])
        self._await_backward(ends)
        if self.after_backward is not None:  # an accumulated step has more forwards
            self._handles = [register_module_forward_hook(WatchEntry(self._guard, self._leave_again))]
        self.seconds += perf_counter() - started

    def _leave_again(self, module: nn.Module, args: Any, output: Any) -> None:
        if module is self.entry:
            self._await_backward(tensors_in(output, 2))

    def _await_backward(self, ends: Iterable[Tensor]) -> None:
        """Hear of the end of the backward that begins at one of these."""
        if self.after_backward is None or not torch.is_grad_enabled() or find_obstacle():
            return
        end = next((t for t in ends if t.grad_fn is not None), None)
        if end is not None:
            end.register_hook(WatchEntry(self._guard, self._at_backward))  # type: ignore[no-untyped-call]

    def _at_backward(self, gradient: Tensor) -> None:
        if self.after_backward is not None:  # torch has no public way to be called when a backward has ended
            torch.autograd.Variable._execution_engine.queue_callback(self.after_backward)

    # -- what the forward meets

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._working += 1
        try:
            result = func(*args, **(kwargs or {}))
            if self._inside and may_matter(func):
                self._guard.run(self._see, func, args, kwargs or {}, result)
            return result
        finally:
            self._working -= 1

    def _see(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """An operation was called: it may be an activation or an attention."""
        kind = find_kind(func)
        if kind in CHOICES:
            self._choose(kind, args, result)
            return
        if not kind or not isinstance(result, Tensor) or not is_readable(result) or result.ndim < 2:
            return
        if find_obstacle():
            return
        if kind in operations.ATTENTION:
            self._attend(self._place.path, kind, args, kwargs, result)
        else:
            self._meet(self._place.path, kind, result, "activation" if kind != "add" else "add")

    def _meet(self, path: str, kind: str, made: Tensor, family: str) -> None:
        """A module's or an operation's result: note it while mapping, else look at it if it is a site."""
        started = perf_counter()
        key = self._place.count(path, kind)
        if self._crossings is not None:
            if made.grad_fn is not None:
                self._crossings.append(Crossing(key, family, made.grad_fn, tuple(made.shape)))
        elif self.chart is not None and (slot := self.chart.slots.get(key)) is not None:
            self._look(slot, made)
        self.seconds += perf_counter() - started

    def _look(self, slot: Slot, made: Tensor) -> None:
        if self._samples.take(slot, made) and made.requires_grad:
            made.register_hook(WatchEntry(self._guard, self._look_back, slot))  # type: ignore[no-untyped-call]

    def _look_back(self, slot: Slot, gradient: Tensor) -> None:
        started = perf_counter()
        if is_readable(gradient) and not find_obstacle():
            self._samples.take_gradient(slot, gradient)
        self.seconds += perf_counter() - started

    def _attend(self, path: str, kind: str, args: Any, kwargs: Any, result: Tensor) -> None:
        if kind == "softmax" and (result.ndim < 3 or result.shape[-1] < 4):
            return
        started = perf_counter()
        key = self._place.count(path, kind)
        if self._crossings is not None:
            self._crossings.append(Crossing(key, "attention", None, tuple(result.shape)))
        elif self.chart is not None and (slot := self.chart.slots.get(key)) is not None:
            with torch.no_grad():
                picked = pick_logits(kind, args, kwargs)
                if picked is not None:
                    self._samples.attention[slot.row] = sharpness(*picked)
        self.seconds += perf_counter() - started

    def _choose(self, kind: str, args: Any, result: Any) -> None:
        """Values were chosen: by a router, if there are as many experts."""
        if find_obstacle() or not args:
            return
        started = perf_counter()
        choice = read_load(self.model, self._place.path, args[0], result)
        if choice is not None:
            key = self._place.count(self._place.path, kind)
            if self._crossings is not None:
                self._crossings.append(Crossing(key, "router", None, choice.shape))
            elif self.chart is not None and (slot := self.chart.slots.get(key)) is not None:
                self._samples.loads[slot.row] = choice.load
        self.seconds += perf_counter() - started

    # -- what was seen

    def take_profiles(self) -> list[tuple[str, str, Profile]]:
        """(name, kind, profile) of every recurrent layer that was followed; before the weights move."""
        return self._sequences.take_profiles() if self._sequences.wanted else []

    def statistics(self) -> Tensor | None:
        """The statistics of every site, shape (sites, len(SEEN)), float64 on the model's device.

        None if this look saw no forward, or was the one that mapped the network.
        """
        return self._samples.summarise()
