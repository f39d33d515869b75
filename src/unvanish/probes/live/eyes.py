"""The eyes of a watched training: one forward and backward looked at, a block of numbers out.

Notable:
- Between looks nothing is attached anywhere. For a look, module hooks know where the forward is (`place`) and
  a torch function mode sees functional activations and attention; both are gone when the forward has ended,
  the tensor hooks go with the graph, and the last hook goes with the step.
- The first look maps the network: the dominators of its graph are the depth axis; they, the activations and
  the attentions become the sites (`chart`). Later looks only copy a few evenly spaced numbers of each
  (`samples`).
- Only forwards in training mode with gradients count, and of these the first one of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.compositions import Unfolded
from unvanish.probes.live.chart import Chart, Crossing, Slot, draw_chart
from unvanish.probes.live.place import ForwardPlace
from unvanish.probes.live.samples import Samples
from unvanish.probes.live.sequences import Sequences
from unvanish.probes.live.sharpness import pick_logits, sharpness
from unvanish.probes.recurrent.profile import Profile

NAMES: dict[Any, str] = {}  # the kind of each torch function, "" if it does not matter


class Eyes(TorchFunctionMode):
    """Looks at a training step: `open` before its forward, `close` after its optimizer's step.

    `after_backward`: called when each backward of the step has ended.
    """

    def __init__(self, model: nn.Module, after_backward: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.model, self.after_backward = model, after_backward
        self.paths = {id(m): name for name, m in model.named_modules()}
        self.chart: Chart | None = None
        self.seconds = 0.0  # our own, of the present look
        self._place = ForwardPlace()
        self._crossings: list[Crossing] | None = None  # of the forward that maps the network
        self._samples = Samples({})
        self._sequences = Sequences()
        self._inside = False  # whether the forward that is looked at runs now
        self._done = False  # whether it has run
        self._busy = False  # whether what runs now is our own
        self._handles: list[Any] = []
        self._compositions = Unfolded()  # open during the forward

    # -- opening and closing

    def open(self, profiling: bool) -> None:
        """Attach what a look needs; the next forward in training mode is looked at.

        `profiling`: follow the time steps of fused recurrent layers too.
        """
        started = perf_counter()
        self._done = False
        self._samples.clear()
        self._sequences.begin(profiling)
        if not self._handles:
            self._handles = [
                register_module_forward_pre_hook(self._enter),
                register_module_forward_hook(self._leave, always_call=True),
            ]
        self.seconds = perf_counter() - started

    def close(self) -> None:
        """Detach everything; harmless when repeated."""
        if self._inside:
            self._end()
        self._detach()
        self._crossings = None

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    # -- the forward

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self.paths.get(id(module))
        if path is None:
            return
        if module is self.model:
            self._place.depth += 1
            first = self._place.depth == 1 and not self._done
            if first and module.training and torch.is_grad_enabled():
                self._begin(args)
        if self._inside:
            self._place.stack.append(path)

    def _begin(self, args: Any) -> None:
        first = next((t for t in tensors_in(args, 2) if t.ndim), None)
        self._samples.batch = None if first is None else int(first.shape[0])
        self._place.begin()
        if self.chart is None:
            self._crossings = []
        self._compositions.open()
        self._inside = True
        self.__enter__()  # type: ignore[no-untyped-call]

    def _end(self) -> None:
        self._inside = False
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._compositions.close()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        path = self.paths.get(id(module))
        if path is None:
            return
        if self._inside:
            self._place.leave(path)
            self._meet_module(module, path, args, output)
        if module is self.model:
            self._place.depth -= 1
            if self._place.depth == 0 and self._inside:
                self._end()
                self._finish(output)

    def _meet_module(self, module: nn.Module, path: str, args: Any, output: Any) -> None:
        """A module has returned: its result may be a site."""
        if self._sequences.wanted and isinstance(module, nn.RNNBase):
            started = perf_counter()
            self._sequences.follow(module, path, args, output)
            self.seconds += perf_counter() - started
        made = next((t for t in tensors_in(output, 1) if t.is_floating_point() and t.ndim), None)
        if made is not None and not isinstance(module, (nn.Flatten, nn.Identity, nn.Dropout)):
            self._busy = True
            try:
                self._meet(path, type(module).__name__, made, "module")
            finally:
                self._busy = False

    def _finish(self, output: Any) -> None:
        """The forward has ended: hooks go; the backward will come by the tensors' own."""
        self._detach()
        crossings, self._crossings = self._crossings, None
        if output is None:  # it raised
            return
        started = perf_counter()
        self._done = True
        ends = [t for t in tensors_in(output, 2) if t.grad_fn is not None]
        if crossings is not None and ends:
            self.chart = draw_chart(crossings, ends[0].grad_fn)
            self._samples = Samples(self.chart.slots)
        self._await_backward(ends)
        if self.after_backward is not None:  # an accumulated step has more forwards
            self._handles = [
                self.model.register_forward_hook(lambda m, a, out: self._await_backward(tensors_in(out, 2)))
            ]
        self.seconds += perf_counter() - started

    def _await_backward(self, ends: Iterable[Tensor]) -> None:
        """Hear of the end of the backward that begins at one of these."""
        end = next((t for t in ends if t.grad_fn is not None), None)
        if end is not None and self.after_backward is not None and torch.is_grad_enabled():
            end.register_hook(self._at_backward)  # type: ignore[no-untyped-call]

    def _at_backward(self, gradient: Tensor) -> None:
        if self.after_backward is not None:  # torch has no public way to be called when a backward has ended
            torch.autograd.Variable._execution_engine.queue_callback(self.after_backward)

    # -- what the forward meets

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._busy:
            return func(*args, **(kwargs or {}))
        kind = NAMES.get(func)
        if kind is None:
            name = operations.plain_name(getattr(func, "__name__", ""))
            wanted = name in operations.ACTIVATIONS or name in operations.ATTENTION or name == "add"
            kind = NAMES[func] = name if wanted else ""
        result = func(*args, **(kwargs or {}))
        if kind and self._inside and isinstance(result, Tensor) and result.ndim > 1:
            if kind in operations.ATTENTION:
                self._attend(self._place.path, kind, args, kwargs or {}, result)
            else:
                self._meet(self._place.path, kind, result, "activation" if kind != "add" else "add")
        return result

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
            made.register_hook(lambda g: self._look_back(slot, g))  # type: ignore[no-untyped-call]

    def _look_back(self, slot: Slot, gradient: Tensor) -> None:
        started = perf_counter()
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
                logits = pick_logits(kind, args, kwargs)
                if logits is not None:
                    self._samples.attention[slot.row] = sharpness(logits)
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
