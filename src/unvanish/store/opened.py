"""What writes or sends records with a thread of its own, so that it can be closed if nobody came to hold it.

Notable: its thread keeps it alive, so what fails between its opening and the assignment to an attribute would
leave the thread running and the folder locked.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from contextlib import suppress
from typing import Protocol
from weakref import WeakKeyDictionary


class Closable(Protocol):
    """Something with a thread that `close` ends; harmless when repeated."""

    def close(self) -> object:
        """End it."""


_openers: WeakKeyDictionary[Closable, int] = WeakKeyDictionary()


def note_opening(one: Closable) -> None:
    """It is about to start its thread."""
    _openers[one] = threading.get_ident()


def list_opened() -> list[Closable]:
    """All that was opened by this thread and is still there."""
    return [one for one, opener in list(_openers.items()) if opener == threading.get_ident()]


def close_since(known: Collection[Closable]) -> None:
    """Close what this thread has opened since `known` was listed."""
    for one in list_opened():
        if not any(one is other for other in known):
            with suppress(Exception):  # it may have failed before its thread began
                one.close()
