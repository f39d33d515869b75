"""Whether the gradient of the last step is still there when the next backward begins: zero_grad is missing.

Notable:
- `zero_grad` sets gradients to None, which costs nothing to see: the tensor is gone. Only where it lives on
  does a hook on one parameter, for one step, compare what lies there when a backward arrives.
- If the first backward of a step finds another gradient, or a later one finds none, it was taken away or
  scaled on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unvanish.probes.live.guard import WatchEntry, WatchGuard
from unvanish.probes.live.readable import find_obstacle

ELEMENTS = 8  # of one gradient
OFTEN, SELDOM = 4, 64  # times that a hook is set at every step; then one in so many


class Leftover:
    """Follows one parameter's gradient from a step to the next; `may_ask`: whether a hook may hang on it."""

    def __init__(self, guard: WatchGuard, may_ask: Callable[[], bool]) -> None:
        self._guard, self._may_ask = guard, may_ask
        self._witness: Tensor | None = None
        self._alive: Any = None  # a weak reference to its gradient
        self._left: Tensor | None = None  # a few of its elements
        self._handle: Any = None
        self._asked = 0  # times that a hook was due
        self._answers: list[bool] = []  # the first backward of a step: the same is there; others: something

    def begin(self) -> float:
        """Before a step: 1 if the last one's gradient was there at each backward, 0 if not; NaN: unknown."""
        if self._handle is not None:
            self.remove()
            answers, self._answers = self._answers, []
            return float(all(answers)) if answers else float("nan")
        if self._alive is None:
            return float("nan")
        return 0.0 if self._alive.expired() else float("nan")

    def end(self, parameters: list[Tensor]) -> None:
        """After a step: note whose gradient is there."""
        witness = self._witness
        if witness is None or witness.grad is None or not witness.requires_grad:  # it may be frozen meanwhile
            witness = next((p for p in parameters if p.requires_grad and _is_plain(p.grad)), None)
            self._witness, self._alive = witness, None
        if witness is None or witness.grad is None:
            return
        kept = self._alive is not None and not self._alive.expired()
        self._alive = torch._C._WeakTensorRef(witness.grad)  # type: ignore[attr-defined]
        if kept:
            self._asked += 1
            due = self._asked <= OFTEN or self._asked % SELDOM == 0
            if due and self._may_ask() and not find_obstacle():
                self._left = _some(witness.grad)
                self._handle = witness.register_hook(WatchEntry(self._guard, self._meet))  # type: ignore[no-untyped-call]

    @property
    def asks(self) -> bool:
        """Whether the next backward tells whether the gradient was kept."""
        return self._handle is not None

    def _meet(self, _: Tensor) -> None:
        """A backward has arrived at the parameter, and has added nothing yet."""
        witness = self._witness
        if witness is None or self._left is None or find_obstacle():
            return
        there = witness.grad
        if there is None or not _is_plain(there):
            self._answers.append(False)
            return
        some = _some(there)
        same = bool(self._answers) or torch.equal(some, self._left)
        self._answers.append(same and bool(some.any()))

    def remove(self) -> None:
        """Take the hook off."""
        handle, self._handle, self._left = self._handle, None, None
        if handle is not None:
            handle.remove()


def _is_plain(gradient: Any) -> bool:
    return type(gradient) is Tensor and gradient.layout == torch.strided and gradient.numel() > 0


def _some(x: Tensor) -> Tensor:
    return x.detach().reshape(-1)[:ELEMENTS].clone()
