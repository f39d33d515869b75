"""Hearing of the steps that a GradScaler leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Scaling:
    """Calls `skipped` after each step that a GradScaler left out; a handle to be removed."""

    def __init__(self, scaler: Any, skipped: Callable[[], None]) -> None:
        self.scaler, self.original = scaler, scaler.step

        def step(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            made = [False]
            handle = optimizer.register_step_post_hook(lambda *_: made.__setitem__(0, True))
            try:
                return self.original(optimizer, *args, **kwargs)
            finally:
                handle.remove()
                if not made[0]:
                    skipped()

        scaler.step = step

    def remove(self) -> None:
        """Give the scaler its own method back."""
        del self.scaler.step
