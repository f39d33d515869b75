"""The eyes of a watched training: one forward and backward looked at, a block of numbers out.

Notable:
- Between looks nothing is attached anywhere. For a look, module hooks say whose turn it is and a torch
  function mode sees functional activations and attention; both are gone when the forward has ended, the
  tensor hooks go with the graph, and the last hook goes with the step.
- The first look maps the network: the dominators of its graph are the depth axis; they, the activations and
  the attentions become the sites. Later looks only copy a few evenly spaced numbers of each.
- All numbers of a look are reduced together on the device, in float64, and leave it in one transfer.
- Only forwards in training mode with gradients count, and of these the first one of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.forward import COMPOSITIONS
from unvanish.probes.live.chart import (
    POSITIONS,
    SAMPLES,
    UNITS,
    Candidate,
    Chart,
    Key,
    Slot,
    charted,
    rectifies,
    thin,
)
from unvanish.probes.live.gist import SEEN, backward, forward, saturated
from unvanish.probes.live.sequences import Turn, few
from unvanish.probes.live.sharpness import sharpness, some_logits
from unvanish.probes.recurrent import replay

SILENT = 12  # looks in a row without a response make a unit dead
NAMES: dict[Any, str] = {}  # the kind of each torch function, "" where it does not matter


class Eyes(TorchFunctionMode):
    """Looks at a training step: `open` before its forward, `close` after its optimizer's step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.paths = {id(m): name for name, m in model.named_modules()}
        self.chart: Chart | None = None
        self.seconds = 0.0  # our own, of the present look
        self.after_backward: Callable[[], None] | None = None
        self._candidates: list[Candidate] | None = None
        self._handles: list[Any] = []
        self._stack: list[str] = []
        self._calls: dict[tuple[str, str], int] = {}
        self._depth = 0
        self._inside = self._done = self._busy = False
        self._batch: int | None = None
        self._ahead: Tensor | None = None
        self._back: Tensor | None = None
        self._attention: dict[int, Tensor] = {}
        self._quiet: Tensor | None = None
        self._kept: dict[str, Any] = {}
        self.profiling = False  # whether the next look follows the time steps of fused recurrent layers
        self._turns: dict[str, Turn] = {}

    # -- opening and closing

    def open(self) -> None:
        """Attach what a look needs; the next forward in training mode is looked at."""
        started = perf_counter()
        self.seconds = 0.0
        self._done = False
        self._attention = {}
        self._ahead = self._back = None
        self._turns = {}
        if not self._handles:
            self._handles = [
                register_module_forward_pre_hook(self._enter),
                register_module_forward_hook(self._leave, always_call=True),
            ]
        self.seconds += perf_counter() - started

    def close(self) -> None:
        """Detach everything, whatever has been seen; harmless when repeated."""
        if self._inside:
            self._end()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._candidates = None

    # -- the forward

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self.paths.get(id(module))
        if path is None:
            return
        if module is self.model:
            self._depth += 1
            if self._depth == 1 and not self._done and module.training and torch.is_grad_enabled():
                self._begin(args)
        if self._inside:
            self._stack.append(path)

    def _begin(self, args: Any) -> None:
        first = next((t for t in tensors_in(args, 2) if t.ndim), None)
        self._batch = None if first is None else int(first.shape[0])
        self._calls, self._stack = {}, []
        if self.chart is None:
            self._candidates = []
        functional = vars(torch.nn.functional)
        self._kept = {name: functional[name] for name in COMPOSITIONS}
        functional.update(dict.fromkeys(COMPOSITIONS, lambda *args: False))
        self._inside = True
        self.__enter__()  # type: ignore[no-untyped-call]

    def _end(self) -> None:
        self._inside = False
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        vars(torch.nn.functional).update(self._kept)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        path = self.paths.get(id(module))
        if path is None:
            return
        if self._inside:
            while self._stack and self._stack[-1] != path:  # what raised inside
                self._stack.pop()
            if self._stack:
                self._stack.pop()
            self._module_output(module, path, args, output)
        if module is self.model:
            self._depth -= 1
            if self._depth == 0 and self._inside:
                self._end()
                self._finish(output)

    def _module_output(self, module: nn.Module, path: str, args: Any, output: Any) -> None:
        if self.profiling and isinstance(module, nn.RNNBase) and path not in self._turns:
            self._follow_time(module, path, args, output)
        made = next((t for t in tensors_in(output, 1) if t.is_floating_point() and t.ndim), None)
        if made is not None and not isinstance(module, (nn.Flatten, nn.Identity, nn.Dropout)):
            self._busy = True
            try:
                self._meet(path, type(module).__name__, made, "module")
            finally:
                self._busy = False

    def _finish(self, output: Any) -> None:
        """The forward has ended: hooks go; the backward will come by the tensors' own."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if output is None:  # it raised
            self._candidates = None
            return
        started = perf_counter()
        self._done = True
        ends = [t for t in tensors_in(output, 2) if t.grad_fn is not None]
        if self._candidates is not None and ends:
            self.chart = charted(self._candidates, ends[0].grad_fn)
        self._candidates = None
        self._follow(ends)
        if self.after_backward is not None:  # an accumulated step has more forwards
            self._handles = [
                self.model.register_forward_hook(lambda m, a, out: self._follow(tensors_in(out, 2)))
            ]
        self.seconds += perf_counter() - started

    def _follow(self, ends: Iterable[Tensor]) -> None:
        """Hear of the end of the backward that begins at one of these."""
        end = next((t for t in ends if t.grad_fn is not None), None)
        if end is not None and self.after_backward is not None and torch.is_grad_enabled():
            end.register_hook(self._at_backward)  # type: ignore[no-untyped-call]

    def _at_backward(self, gradient: Tensor) -> None:
        if self.after_backward is not None:
            torch.autograd.Variable._execution_engine.queue_callback(self.after_backward)

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
            path = self._stack[-1] if self._stack else ""
            if kind in operations.ATTENTION:
                self._attend(path, kind, args, kwargs or {}, result)
            else:
                self._meet(path, kind, result, "activation" if kind != "add" else "add")
        return result

    def _key(self, path: str, kind: str) -> Key:
        call = self._calls[path, kind] = self._calls.get((path, kind), -1) + 1
        return path, kind, call

    def _meet(self, path: str, kind: str, made: Tensor, family: str) -> None:
        """A module's or an operation's result: note it, or look at it where it is a site."""
        started = perf_counter()
        key = self._key(path, kind)
        if self._candidates is not None:
            if made.grad_fn is not None:
                self._candidates.append(Candidate(key, family, made.grad_fn, tuple(made.shape)))
        elif self.chart is not None and (slot := self.chart.slots.get(key)) is not None:
            self._look(slot, made)
        self.seconds += perf_counter() - started

    def _look(self, slot: Slot, made: Tensor) -> None:
        part = thin(made.detach(), self._batch)
        if part is None:
            return
        ahead, _ = self._buffers(made)
        slot.shape, slot.numel = tuple(part.shape), made.numel()
        slot.low = made.dtype == torch.float16
        slot.place(ahead).copy_(part)
        if made.requires_grad:
            made.register_hook(lambda g: self._look_back(slot, g))  # type: ignore[no-untyped-call]

    def _look_back(self, slot: Slot, gradient: Tensor) -> None:
        started = perf_counter()
        part = thin(gradient.detach(), self._batch)
        if part is not None and self._back is not None and tuple(part.shape) == slot.shape:
            slot.place(self._back).copy_(part)
            slot.came = True
        self.seconds += perf_counter() - started

    def _buffers(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if self._ahead is None or self._back is None:
            assert self.chart is not None
            shape = (len(self.chart.slots), SAMPLES, POSITIONS, UNITS)
            self._ahead = torch.zeros(shape, dtype=torch.float32, device=like.device)
            self._back = torch.zeros_like(self._ahead)
            for slot in self.chart.slots.values():
                slot.came = False
        return self._ahead, self._back

    def _attend(self, path: str, kind: str, args: Any, kwargs: Any, result: Tensor) -> None:
        if kind == "softmax" and (result.ndim < 3 or result.shape[-1] < 4):
            return
        started = perf_counter()
        key = self._key(path, kind)
        if self._candidates is not None:
            self._candidates.append(Candidate(key, "attention", None, tuple(result.shape)))
        elif self.chart is not None and (slot := self.chart.slots.get(key)) is not None:
            with torch.no_grad():
                logits = some_logits(kind, args, kwargs)
                if logits is not None:
                    self._attention[slot.row] = sharpness(logits)
        self.seconds += perf_counter() - started

    def _follow_time(self, module: nn.RNNBase, path: str, args: Any, output: Any) -> None:
        """Keep a few sequences of a recurrent layer's input, and their gradients when they come."""
        started = perf_counter()
        x, hx = args[0], args[1] if len(args) > 1 else None
        if isinstance(x, Tensor) and x.ndim == 3:
            along = 0 if module.batch_first else 1
            turn = self._turns[path] = Turn(module, few(x, along), few(hx, 1))
            states = output[1] if isinstance(output[1], tuple) else (output[1],)
            for name, made, dim in (("output", output[0], along), *(("state", s, 1) for s in states)):
                if made.requires_grad:
                    keep = turn.kept(name if name == "output" else f"{name}{len(turn.gradients)}", dim)
                    made.register_hook(keep)
        self.seconds += perf_counter() - started

    # -- what was seen

    def profiles(self) -> list[tuple[str, str, replay.Profile]]:
        """(name, kind, profile) of every recurrent layer that was followed; before the weights move."""
        found = []
        for path, turn in self._turns.items():
            made = turn.replayed()
            for p in made:
                name = f"{path}.l{p.layer}{'_reverse' if p.reverse else ''}" if len(made) > 1 else path
                found.append((name or "(model)", type(turn.module).__name__.lower(), p))
        self._turns = {}
        return found

    @torch.no_grad()
    def seen(self) -> Tensor | None:
        """The statistics `SEEN` of every site, shape (sites, len(SEEN)), float64 on the model's device.

        None where this look saw no forward, or was the one that mapped the network.
        """
        if self.chart is None or self._ahead is None or self._back is None:
            return None
        slots = list(self.chart.slots.values())
        device = self._ahead.device
        facts = [(*s.sizes, s.numel, s.low, s.came) for s in slots]
        sizes = torch.tensor(facts, dtype=torch.float64).to(device)
        found = torch.full((len(slots), len(SEEN)), math.nan, dtype=torch.float64, device=device)
        ahead, back = self._ahead.flatten(2), self._back.flatten(1)
        found[:, :4] = forward(ahead, sizes)
        found[:, 4:7] = backward(back, sizes, any(s.low for s in slots))
        found[:, 7] = self._dead(self._ahead, slots)
        found[:, 8] = saturated(ahead.flatten(1), sizes, slots)
        for row, pair in self._attention.items():
            found[row, 9:] = pair.to(device)
        return found

    def _dead(self, ahead: Tensor, slots: Sequence[Slot]) -> Tensor:
        """Share of a rectifier's units that were silent in the last `SILENT` looks."""
        if self._quiet is None or self._quiet.device != ahead.device:
            self._quiet = torch.zeros(len(slots), UNITS, device=ahead.device)
        silent = ~ahead.any(2).any(1)
        self._quiet = torch.where(silent, self._quiet + 1, 0)
        units = torch.tensor([s.sizes[2] for s in slots], device=ahead.device)
        inside = torch.arange(UNITS, device=ahead.device)[None] < units[:, None]
        share = ((self._quiet >= SILENT) & inside).sum(1).double() / units
        able = torch.tensor([rectifies(s.key[1]) for s in slots], device=ahead.device)
        return torch.where(able, share, math.nan)
