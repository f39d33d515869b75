"""An optimizer that makes its gradients itself, by calling a closure within its step.

Notable:
- Nearly all call it once, before anything else. So the closure is handed on inside ours, and when it has
  ended (with what a library does there: unscaling, clipping) the step is about to be made as in any loop.
- Who calls it again in a step, or moved its weights before, is left alone from then on: what the step did is
  told when it has ended, and the gradients are those of the last backward.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from unvanish.probes.live.guard import StepEntry, WatchGuard

ASKED = 8  # weights, evenly spaced, that tell whether any has moved


class ClosureEntry(StepEntry):
    """An entry in the hooks before an optimizer's step; `method` is called when the closure has ended."""

    __slots__ = ("_left",)

    def __init__(
        self, guard: WatchGuard, method: Callable[..., Any], swift: Callable[..., bool] | None = None
    ) -> None:
        super().__init__(guard, method, swift)
        self._left: weakref.WeakSet[Any] = weakref.WeakSet()  # optimizers that are left alone

    def __call__(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        """The step's arguments with our closure in the place of the program's; None without one."""
        told, found = args, None
        if len(args) > 1 or kwargs:
            told, found = self._guard.run(self._replace, optimizer, args, kwargs) or (args, None)
        if found is None:
            super().__call__(optimizer, told, kwargs)
        return found

    def _replace(self, optimizer: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """What the step is told with now, and its arguments with our closure; None without one of ours."""
        named = bool(kwargs) and callable(kwargs.get("closure"))
        if not named and (len(args) != 2 or not callable(args[1])):
            nothing = len(args) == 2 and args[1] is None  # Accelerate hands its own None on
            return args[:1] if nothing else args, None
        if optimizer in self._left:
            return args, None
        closure = self._wrap(optimizer, args, kwargs)
        return args, (args, {**kwargs, "closure": closure}) if named else ((args[0], closure), kwargs)

    def _wrap(self, optimizer: Any, args: Any, kwargs: Any) -> Callable[..., Any]:
        inner = kwargs["closure"] if kwargs else args[1]
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        asked = weights[:: max(1, len(weights) // ASKED)]
        versions = [p._version for p in asked]
        called = 0

        def choose() -> tuple[Any, ...] | None:
            """What the step is told with, now that the closure has ended; None if nothing is to be told."""
            nonlocal called
            called += 1
            if called == 1 and [p._version for p in asked] == versions:
                return optimizer, args[:1], {}
            if optimizer in self._left:
                return None
            self._left.add(optimizer)
            return optimizer, args, kwargs

        def closure(*given: Any, **more: Any) -> Any:
            result = inner(*given, **more)
            told = self._guard.run(choose)
            if told is not None:
                StepEntry.__call__(self, *told)
            return result

        return closure
