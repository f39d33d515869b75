"""A step's loss, computed again: the calls of the model, and what the program made of their outputs.

Notable:
- During the one step that is to be replayed, a torch function mode notes the operations between the end
  of the model's forward and the backward; between such steps nothing is attached anywhere. It is off
  inside the model, and is not laid over a mode of the program.
- What is replayed is the smallest part: the operations through which the loss depends on the model's outputs.
  All else that they read is as it was. A part that writes in place, or draws random numbers, is not replayed.
- Every forward begins with the random numbers that it had.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unvanish.probes.calls import tensors_in
from unvanish.probes.live.guard import WatchEntry, WatchGuard
from unvanish.probes.live.readable import find_obstacle
from unvanish.probes.modes import is_overridden, lies_on_stack, push_mode, remove_mode

MOST_CALLS = 4  # of the model in one step: an accumulation of more is replayed by its last one
MOST_NOTED = 2000  # operations between a forward and its backward
MARKS = ("requires_grad_", "retain_grad")  # they change no number
RANDOM = ("dropout", "bernoulli", "rand", "randn", "normal", "multinomial", "rrelu", "gumbel_softmax")


@dataclass(frozen=True)
class MixedPrecision:
    """The automatic mixed precision at one moment."""

    device: str = "cpu"
    dtype: Any = None
    enabled: bool = False

    @classmethod
    def now(cls, device: str) -> MixedPrecision:
        """As it is for a type of device."""
        enabled = torch.is_autocast_enabled(device)
        return cls(device, torch.get_autocast_dtype(device) if enabled else None, enabled)

    def again(self) -> Any:
        """A context with the same."""
        return torch.autocast(self.device, self.dtype) if self.enabled else contextlib.nullcontext()


@dataclass(frozen=True)
class ModelCall:
    """One forward of the model: its arguments, no copies; the random state from before it; its output."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    cpu: Tensor
    cuda: list[Tensor]
    mixing: MixedPrecision
    output: Any

    def run(self, model: nn.Module) -> Any:
        """The output again, from the same random numbers."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        with self.mixing.again():
            return model(*self.args, **self.kwargs)


@dataclass(frozen=True)
class NotedOperation:
    """One operation outside of the model."""

    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    made: tuple[Tensor, ...]  # the tensors in its result
    mixing: MixedPrecision

    def run(self, known: Mapping[int, Any]) -> Any:
        """Its result again, of tensors that are known anew."""
        args, kwargs = _replace(self.args, known), _replace(dict(self.kwargs), known)
        with self.mixing.again():
            return self.function(*args, **kwargs)


@dataclass
class Recipe:
    """What computes a step's loss again; `obstacle`: why it cannot."""

    calls: list[ModelCall] = field(default_factory=list)
    noted: list[NotedOperation] = field(default_factory=list)
    roots: list[Tensor] = field(default_factory=list)  # that a backward began at
    obstacle: str = ""

    def value(self) -> float:
        """The sum of the losses, as it was."""
        return sum(float(root.detach()) for root in self.roots)

    def run(self, model: nn.Module) -> Tensor:
        """The sum of the losses again; ValueError says why it cannot be computed."""
        if self.obstacle or not self.roots or not self.calls:
            raise ValueError(self.obstacle or "no backward of the model's loss was seen")
        needed, calls = self._slice()
        known: dict[int, Any] = {}
        for call in calls:
            output = call.run(model)
            pairs = zip(tensors_in(call.output), tensors_in(output), strict=True)
            known.update({id(old): new for old, new in pairs})
        for operation in needed:
            pairs = zip(operation.made, tensors_in(operation.run(known), 2), strict=True)
            known.update({id(old): new for old, new in pairs})
        found = [known[id(root)] for root in self.roots if id(root) in known]
        if len(found) < len(self.roots):
            raise ValueError("a loss does not depend on the model's output by operations that were seen")
        total: Tensor = torch.stack([loss.reshape(()).double() for loss in found]).sum()
        return total

    def _slice(self) -> tuple[list[NotedOperation], list[ModelCall]]:
        """The operations and the calls that the losses depend on, in the order that they ran."""
        makers = {id(t): (i, operation) for i, operation in enumerate(self.noted) for t in operation.made}
        outputs = {id(t): call for call in self.calls for t in tensors_in(call.output)}
        wanted, chosen, calls = [id(r) for r in self.roots], dict[int, NotedOperation](), set[int]()
        while wanted:
            key = wanted.pop()
            if key in makers and (reason := _find_reason(makers[key][1])):
                raise ValueError(reason)
            if key in outputs:
                calls.add(id(outputs[key]))
            elif key in makers and makers[key][0] not in chosen:
                place, operation = makers[key]
                chosen[place] = operation
                wanted += [id(t) for t in tensors_in((operation.args, dict(operation.kwargs)))]
        kept = [call for call in self.calls if id(call) in calls]
        if len(kept) > MOST_CALLS:
            raise ValueError(f"the step is made of more than {MOST_CALLS} forwards")
        return [chosen[i] for i in sorted(chosen)], kept


def _find_reason(operation: NotedOperation) -> str:
    """Why an operation cannot run again; empty if it can."""
    name = getattr(operation.function, "__name__", "")
    inside = name.endswith("_") and not name.endswith("__")
    if inside or name in ("__setitem__", "__iadd__", "__isub__", "__imul__") or "out" in operation.kwargs:
        return f"the loss is computed by {name}, which writes in place"
    if any(name.startswith(word) for word in RANDOM):
        return f"the loss is computed by {name}, which draws random numbers"
    return ""


def _replace(value: Any, known: Mapping[int, Any]) -> Any:
    """A value with the tensors that are known anew."""
    if isinstance(value, Tensor):
        return known.get(id(value), value)
    if isinstance(value, dict):
        return {key: _replace(item, known) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_replace(item, known) for item in value)
    return value


class StepReplay(TorchFunctionMode):
    """Notes how one step computes its loss: `open` before it, `close` before its optimizer steps."""

    SEES_INSIDE = True  # no mode of the program, for those that look

    def __init__(self, model: nn.Module, guard: WatchGuard) -> None:
        super().__init__()
        self.recipe = Recipe()
        self._model, self._guard = model, guard
        self._device = next(model.parameters()).device.type
        self._thread = 0
        self._depth = 0  # calls of the model that run now
        self._state: tuple[Tensor, list[Tensor]] | None = None  # random, from before the forward
        self._handles: list[Any] = []
        self._working = 0

    def open(self) -> None:
        """Attach; the next step is noted."""
        self.remove()
        self.recipe, self._thread, self._depth = Recipe(), threading.get_ident(), 0
        enter, leave = WatchEntry(self._guard, self._enter), WatchEntry(self._guard, self._leave)
        self._handles = [
            self._model.register_forward_pre_hook(enter),
            self._model.register_forward_hook(leave, with_kwargs=True),
        ]

    def close(self) -> Recipe:
        """Detach; what was noted."""
        self.remove()
        found, self.recipe = self.recipe, Recipe()
        return found

    def remove(self) -> None:
        """Detach; harmless when repeated. In another thread than the step's the mode stays, and is idle."""
        while self._handles:
            self._handles.pop().remove()
        if lies_on_stack(self) and not self._working:
            remove_mode(self)

    def _enter(self, module: nn.Module, args: Any) -> None:
        if self._thread != threading.get_ident():
            return
        self._depth += 1
        if self._depth > 1:
            return
        remove_mode(self)
        ready = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._state = torch.get_rng_state(), torch.cuda.get_rng_state_all() if ready else []

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._thread != threading.get_ident() or not self._depth:
            return
        self._depth -= 1
        if self._depth or self._state is None:
            return
        (cpu, cuda), self._state = self._state, None
        if output is None or not module.training or not torch.is_grad_enabled():
            return
        obstacle = find_obstacle() or ("a function mode is on around them" if is_overridden() else "")
        if obstacle:
            self.recipe.obstacle = f"operations cannot be seen: {obstacle}"
            return
        self.recipe.calls.append(ModelCall(args, kwargs, cpu, cuda, MixedPrecision.now(self._device), output))
        push_mode(self)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._working += 1
        try:
            result = func(*args, **(kwargs or {}))
            if self._handles and not self._depth:
                self._guard.run(self._note, func, args, kwargs or {}, result)
            return result
        finally:
            self._working -= 1

    def hear(self, roots: Any) -> None:
        """A backward begins at these tensors."""
        if not self._handles:
            return
        some = (roots,) if isinstance(roots, Tensor) else tuple(roots)
        if len(some) == 1 and isinstance(some[0], Tensor) and some[0].numel() == 1:
            self.recipe.roots.append(some[0])
        else:
            self.recipe.obstacle = "a backward began at more than one number"

    def _note(self, func: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        made = tuple(tensors_in(result, 2))
        if (
            getattr(func, "__name__", "") in MARKS
            or not made
            or not any(t.requires_grad for t in made)
            or self.recipe.obstacle
        ):
            return
        if len(self.recipe.noted) >= MOST_NOTED:
            self.recipe.obstacle = f"more than {MOST_NOTED} operations compute the loss"
            return
        mixing = MixedPrecision.now(self._device)
        self.recipe.noted.append(NotedOperation(func, args, kwargs, made, mixing))
