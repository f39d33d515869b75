"""Where a forward is: the modules around the present operation, and the calls so far."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch import Tensor

from unvanish.probes.calls import tensors_in
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


def find_call() -> FrameType | None:
    """The frame of the module call that runs our hook."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "_call_impl":
        frame = frame.f_back
    return frame


def find_input(args: Any, call: FrameType | None) -> Tensor | None:
    """The first tensor among a module's arguments, if there is one; `call`: its frame."""
    keywords = None if call is None else call.f_locals.get("kwargs")
    some = (t for t in tensors_in((args, keywords), 3) if t.ndim and t.numel() and not t.is_nested)
    return next(some, None)


def find_size(args: Any, call: FrameType | None) -> int:
    """How many numbers a sample of a module's first argument has; 0 if unknown. `call`: its frame."""
    first = find_input(args, call)
    return 0 if first is None else first.numel() // first.shape[0]
