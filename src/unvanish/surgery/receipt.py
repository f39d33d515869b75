"""The record of a surgery: every change with its undo, and the error that refuses one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from unvanish.core.brief import Brief


class SurgeryError(ValueError):
    """A change that cannot be made; the text names the thing, the place and the next step."""


@dataclass(frozen=True, repr=False)
class Change(Brief):
    """One change: where, what in words, and how to undo it."""

    where: str
    what: str
    undo: Callable[[], None] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.where or '(model)'}: {self.what}"


@dataclass(repr=False)
class Receipt(Brief):
    """Every change, in order; `undo` reverts them all, bit for bit.

    `loss` is the loss to train with from now on, None if the user's own stays; `handles` holds what runs
    around the optimizer's steps, such as a clipper, by the cure's name.
    """

    changes: list[Change] = field(default_factory=list)
    loss: Any = None
    handles: dict[str, Any] = field(default_factory=dict)

    def undo(self) -> None:
        """Undo every change, the last one first; a second call does nothing."""
        while self.changes:  # one that is broken off is undone again
            self.changes[-1].undo()
            self.changes.pop()

    def __len__(self) -> int:
        return len(self.changes)

    def __str__(self) -> str:
        return "\n".join(str(change) for change in self.changes) or "nothing was changed"
