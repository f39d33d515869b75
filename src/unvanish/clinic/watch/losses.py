"""The loss of every step, read where its backward begins; nobody has to tell it.

Notable: a backward is one of this training if it changed the gradient of one of a few parameters, so in a
program of several models each watch has its own. Of several backwards in a step those of an accumulation are
added if each was divided by their number, else their mean is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unvanish.probes.live.examination import find_root
from unvanish.probes.live.loss_roots import LossRoot, read_root
from unvanish.probes.live.readable import find_obstacle

ASKED = 8  # parameters, evenly spaced


class StepLosses:
    """The losses of the backwards of the present step; `told`: somebody else knows the loss."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        step = max(1, len(parameters) // ASKED)
        self._asked = [*parameters[::step], *parameters[-1:]]
        self._root: LossRoot | None = None  # of the backward that runs
        self._before: list[Tensor | None] = []  # gradients when it began
        self._versions: list[int] = []  # theirs
        self._made: list[LossRoot] = []
        self.told = False

    def begin(self, roots: Any, scale: float) -> int:
        """A backward begins; log2 of its loss scale."""
        root = None if find_obstacle() else find_root(roots)
        if root is None:
            self._root = None
            return 0
        self._root = read_root(root, scale)
        self._before = before = [p.grad for p in self._asked]
        self._versions = [-1 if g is None else g._version for g in before]
        return self._root.scale_log2

    @property
    def open(self) -> bool:
        """Whether a backward runs whose loss was read."""
        return self._root is not None

    def end(self, failed: bool) -> bool:
        """The backward has ended; whether its loss is one of this training's."""
        root, self._root = self._root, None
        before, self._before = self._before, []
        if root is None or failed:
            return False
        for p, gradient, version in zip(self._asked, before, self._versions, strict=True):
            now = p.grad
            if now is not gradient or (now is not None and now._version != version):
                self._made.append(root)
                return True
        return False

    @property
    def value(self) -> Any:
        """The loss of the step so far: a number, a tensor of one on a device, or NaN."""
        if len(self._made) < 2:
            return self._made[0].value if self._made else math.nan
        values = [root.value for root in self._made]
        shared = all(root.parts == len(values) for root in self._made)
        return sum(values[1:], values[0]) / (1 if shared else len(values))

    def forget(self) -> None:
        """The step has ended."""
        self._made.clear()
        self.told = False
