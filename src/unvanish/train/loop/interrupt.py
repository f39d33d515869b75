"""Ctrl-C and a polite kill end a training after the step that is being made, with everything saved.

Notable: the second Ctrl-C does not wait.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A training was stopped and saved; the text says how to go on."""


class Brake:
    """Whether somebody wants the training to end; a context manager that listens."""

    def __init__(self) -> None:
        self.pulled = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Brake:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._pull) for number in SIGNALS}
        return self

    def _pull(self, number: int, frame: FrameType | None) -> None:
        if self.pulled:
            raise KeyboardInterrupt
        self.pulled = True

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
