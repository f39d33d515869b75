"""Where a forward is: the modules around the present operation, and the calls so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from unvanish.probes.live.chart import Key


@dataclass(slots=True)
class ForwardPlace:
    """The place of a forward in its model, as the hooks around every module see it."""

    depth: int = 0  # calls of the model itself, one inside the other
    stack: list[str] = field(default_factory=list)  # paths of the modules around us
    calls: dict[tuple[str, str], int] = field(default_factory=dict)  # of each path and kind, from 0

    def begin(self) -> None:
        """A forward begins."""
        self.stack, self.calls = [], {}

    def leave(self, path: str) -> None:
        """A module has returned; modules within it that raised have not."""
        while self.stack and self.stack[-1] != path:
            self.stack.pop()
        if self.stack:
            self.stack.pop()

    @property
    def path(self) -> str:
        """The innermost module."""
        return self.stack[-1] if self.stack else ""

    def count(self, path: str, kind: str) -> Key:
        """The key of the next call of an operation."""
        call = self.calls[path, kind] = self.calls.get((path, kind), -1) + 1
        return path, kind, call
