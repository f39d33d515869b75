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
        named = bool(kwargs) and callable(kwargs.get("closure"))
        if not named and (len(args) != 2 or not callable(args[1])):
            nothing = len(args) == 2 and args[1] is None  # Accelerate hands its own None on
            super().__call__(optimizer, args[:1] if nothing else args, kwargs)
            return None
        left = optimizer in self._left
        closure = None if left else self._guard.run(self._wrap, optimizer, args, kwargs)
        if closure is None:
            super().__call__(optimizer, args, kwargs)
            return None
        return (args, {**kwargs, "closure": closure}) if named else ((args[0], closure), kwargs)

    def _wrap(self, optimizer: Any, args: Any, kwargs: Any) -> Callable[..., Any]:
        inner = kwargs["closure"] if kwargs else args[1]
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        asked = weights[:: max(1, len(weights) // ASKED)]
        versions = [p._version for p in asked]
        called = 0

        def closure(*given: Any, **more: Any) -> Any:
            nonlocal called
            result = inner(*given, **more)
            called += 1
            if called == 1 and [p._version for p in asked] == versions:
                StepEntry.__call__(self, optimizer, args[:1], {})
            elif optimizer not in self._left:
                self._left.add(optimizer)
                StepEntry.__call__(self, optimizer, args, kwargs)
            return result

        return closure
