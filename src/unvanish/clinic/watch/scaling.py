"""Hearing of the steps that a GradScaler leaves out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class ScalerStep:
    """Stands in for a GradScaler's `step` and calls `skipped` with the optimizer whose step it left out.

    `count`: a method that says how many steps were made so far; its owner is known weakly. A copy or a pickle
    of the scaler holds the scaler's own method in its place; `remove` puts it back.
    """

    def __init__(self, scaler: Any, count: Callable[[], int], skipped: Callable[..., None]) -> None:
        self._scaler = weakref.ref(scaler)
        self._own = vars(scaler).get("step")  # what the program put there itself
        self._count, self._skipped = weakref.WeakMethod(count), skipped
        scaler.step = self

    def __call__(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        scaler = self._scaler()
        before = self._made()
        if self._own is not None:
            result = self._own(optimizer, *args, **kwargs)
        else:
            kind: Any = type(scaler)
            result = kind.step(scaler, optimizer, *args, **kwargs)
        if before is not None and self._made() == before:
            self._skipped(optimizer)
        return result

    def _made(self) -> int | None:
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
