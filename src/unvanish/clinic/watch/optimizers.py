"""The optimizers of a watched training: those that were named, and those that turn up.

Notable:
- torch tells global hooks of every optimizer's step, also under the wrappers of Accelerate, Lightning and
  fastai. Who was given no optimizer takes those whose parameters are the model's; who was given some learns
  which others hold parameters of the model.
- Until the first one turns up, nothing else may hold the watch, so the global hook does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from unvanish.probes.live.guard import PassingEntry, StepEntry, WatchGuard

Known = dict[int, weakref.ref[Any]]  # optimizers by their ids

INNER = ("optimizer", "opt")  # attributes by which wrappers hold the optimizer that steps


class OptimizerFinder:
    """Tells `meet` of optimizers of a model that were not known; `hear` is called before every step.

    `hear` and `meet` are methods of the watch. `known`: the optimizers that were named.
    """

    def __init__(
        self,
        guard: WatchGuard,
        model: nn.Module,
        known: tuple[Any, ...],
        hear: Callable[..., None],
        meet: Callable[[Any], None],
    ) -> None:
        self.guard, self.model = guard, model
        self._meet = weakref.WeakMethod(meet)
        self._known: Known = {id(o): weakref.ref(o) for o in known}
        self._hear = StrangerEntry(guard, hear, self._known)
        self._strong = not known
        entry = StepEntry(guard, hear) if self._strong else self._hear
        self._hook = guard.hang_on_step(register_optimizer_step_pre_hook, entry)

    def hear(self, optimizer: Any) -> bool:
        """An optimizer of the process is about to step; whether it is one of others that was not known."""
        ref = self._known.get(id(optimizer))
        if ref is not None and ref() is optimizer:
            return False
        self._known[id(optimizer)] = weakref.ref(optimizer)
        meet = self._meet()
        if meet is None or not holds_some(optimizer, self.model):
            return True
        meet(optimizer)
        return False

    def loosen(self) -> None:
        """An optimizer holds the watch from now on; not while any goes through its hooks before a step."""
        if self._strong:
            self._strong = False
            self._hook.replace(register_optimizer_step_pre_hook, self._hear)


class StrangerEntry(PassingEntry):
    """An entry in the step hooks of all optimizers, for those that are not known."""

    __slots__ = ("_known",)

    def __init__(self, guard: WatchGuard, method: Callable[..., Any], known: Known) -> None:
        super().__init__(guard, method)
        self._known = known

    def __call__(self, optimizer: Any, *args: Any) -> None:
        try:
            ref = self._known.get(id(optimizer))
            if ref is not None and ref() is optimizer:
                return
        except Exception as error:
            with self._guard.stepped():
                self._guard.fail(error)
            return
        super().__call__(optimizer, *args)


def holds_some(optimizer: Any, model: nn.Module) -> bool:
    """Whether an optimizer holds a parameter of a model."""
    own = {id(p) for p in model.parameters()}
    return any(id(p) in own for group in optimizer.param_groups for p in group["params"])


def unwrap_optimizer(optimizer: Any) -> Any:
    """The optimizer that steps, inside the wrappers of others."""
    for _ in range(4):
        inner = next((o for name in INNER if is_optimizer(o := getattr(optimizer, name, None))), None)
        if inner is None or inner is optimizer:
            break
        optimizer = inner
    return optimizer


def is_optimizer(value: Any) -> bool:
    """Whether something has the groups and the step of an optimizer."""
    return isinstance(getattr(value, "param_groups", None), list) and callable(getattr(value, "step", None))
