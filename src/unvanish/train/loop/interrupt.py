"""Ctrl-C, SIGTERM and a closed terminal end a training after the current step, with everything saved.

Notable:
- A second signal does not wait.
- What is ignored stays ignored: `nohup` and shells that start programs in the background have their reasons.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A training was stopped; the text says where, and how to continue."""


class Brake:
    """Whether a signal asked the training to end; a context manager that listens for it."""

    def __init__(self) -> None:
        self.pulled = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Brake:
        if threading.current_thread() is threading.main_thread():
            known = {number: signal.getsignal(number) for number in SIGNALS}
            heard = [n for n, handler in known.items() if handler not in (signal.SIG_IGN, None)]
            self._before = {number: signal.signal(number, self._pull) for number in heard}
        return self

    def _pull(self, number: int, frame: FrameType | None) -> None:
        if self.pulled:
            raise KeyboardInterrupt
        self.pulled = True

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
