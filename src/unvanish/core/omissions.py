"""What could not be measured, and why: the one place where a reading is tried.

Notable: a reading that fails unexpectedly is "not measured", and the report says so. This project's own tests
are strict: there the failure is raised, so that no fault of ours hides as an omission.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

T = TypeVar("T")
SHOWN, LENGTH = 3, 200  # places named, characters of a reason


class Omissions:
    """The readings that failed, those with one reason together."""

    strict: ClassVar[bool] = False

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], dict[str, None]] = {}

    def note(self, what: str, where: str, reason: Exception | str) -> None:
        """Keep that `what` was not measured at `where`; in strict tests an exception is raised."""
        if isinstance(reason, Exception):
            if Omissions.strict:
                raise reason
            reason = describe_error(reason)
        self._places.setdefault((what, reason), {})[where] = None

    def attempt(self, what: str, where: str, look: Callable[[], T], otherwise: Callable[[], T]) -> T:
        """What a reading gives; what `otherwise` gives if it fails."""
        try:
            return look()
        except Exception as error:
            self.note(what, where, error)
            return otherwise()

    def sentences(self) -> list[str]:
        """One sentence for each kind of reading and reason."""
        return [f"{what}{_name(list(places))}: {reason}" for (what, reason), places in self._places.items()]


def describe_error(error: BaseException) -> str:
    """The kind of an error and the first line of its text."""
    text = (str(error).strip().splitlines() or [""])[0]
    text = text if len(text) <= LENGTH else text[:LENGTH].rstrip() + " ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _name(places: list[str]) -> str:
    named = [place for place in places if place]
    if not named:
        return ""
    more = len(named) - SHOWN
    return f" in {', '.join(named[:SHOWN])}" + (f" and {more} more" if more > 0 else "")


@contextmanager
def be_strict(wanted: bool = True) -> Iterator[None]:
    """Raise what could not be measured, or do not, while the block runs; for tests."""
    before, Omissions.strict = Omissions.strict, wanted
    try:
        yield
    finally:
        Omissions.strict = before
