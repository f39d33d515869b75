"""Hearing of the steps that a GradScaler leaves out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from unvanish.probes.live.guard import WatchEntry, WatchGuard


class ScalerStep:
    """Stands in for a GradScaler's `step` from `hang` on; `remove` puts its own back.

    `count`: says how many steps were made so far. `ended`: called after each step with its optimizer and what
    `count` said before. Both are methods whose owner is known weakly. A copy or a pickle of the scaler holds
    the scaler's own method in its place.
    """

    def __init__(
        self, guard: WatchGuard, scaler: Any, count: Callable[[], int], ended: Callable[[Any, int], None]
    ) -> None:
        self._scaler = weakref.ref(scaler)
        self._own = vars(scaler).get("step")  # what the program put there itself
        self._count, self._ended = weakref.WeakMethod(count), WatchEntry(guard, ended)
        self._run = guard.run

    def hang(self) -> None:
        """Take the place of the scaler's own method; whoever removes this holds it already."""
        if (scaler := self._scaler()) is not None:
            scaler.step = self

    def __call__(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        made = self._run(self._ask)
        result = self._step(optimizer, *args, **kwargs)
        self._ended(optimizer, made)
        return result

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        scaler: Any = self._scaler()
        return type(scaler).step(scaler, *args, **kwargs) if self._own is None else self._own(*args, **kwargs)

    def _ask(self) -> int | None:
        count = self._count()
        return None if count is None else count()

    def remove(self) -> None:
        """Give the scaler its own method back; if something else stands there now, it stays."""
        scaler = self._scaler()
        if scaler is not None and vars(scaler).get("step") is self:
            if self._own is None:
                del scaler.step
            else:
                scaler.step = self._own

    def __reduce__(self) -> Any:
        if self._own is not None:
            return next, (iter([self._own]),)
        return getattr, (self._scaler(), "step")
