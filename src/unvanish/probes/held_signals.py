"""Signals held back for a moment: what is being put back must not be broken off by Ctrl-C.

Notable: Python runs handlers in the main thread only, between two of its steps, so there is nothing to hold
elsewhere. The operating system still delivers; the program's own handlers run when the moment is over.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGPROF", "SIGBREAK")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class HeldSignals:
    """The handlers that a program has set, replaced by one that takes note; `release` may be called again."""

    def __init__(self) -> None:
        self.handlers: dict[Any, Any] = {}
        self.noted: list[int] = []

    def hold(self) -> None:
        """From here on, signals are only noted."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and handler != self.note:
                self.handlers[number] = handler
                try:
                    signal.signal(number, self.note)
                except ValueError:  # an interpreter that is not the main one
                    del self.handlers[number]

    def note(self, number: int, frame: Any) -> None:
        """Remember a signal."""
        self.noted.append(number)

    def release(self) -> None:
        """The program's handlers again, which are told of what was noted."""
        for number in list(self.handlers):
            signal.signal(number, self.handlers[number])
            del self.handlers[number]
        while self.noted:
            signal.raise_signal(self.noted.pop())
