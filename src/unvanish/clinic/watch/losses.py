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
        self._before: list[tuple[Tensor | None, int]] = []
        self._made: list[LossRoot] = []
        self.told = False

    def begin(self, roots: Any, scale: float) -> int:
        """A backward begins; log2 of its loss scale."""
        root = None if find_obstacle() else find_root(roots)
        self._root = None if root is None else read_root(root, scale)
        self._before = [(p.grad, -1 if p.grad is None else p.grad._version) for p in self._asked]
        return 0 if self._root is None else self._root.scale_log2

    def end(self, failed: bool) -> bool:
        """The backward has ended; whether its loss is one of this training's."""
        root, self._root = self._root, None
        before, self._before = self._before, []
        if root is None or failed or not any(map(_is_changed, self._asked, before)):
            return False
        self._made.append(root)
        return True

    @property
    def value(self) -> Any:
        """The loss of the step so far: a number, a tensor of one on a device, or NaN."""
        values = [root.value for root in self._made]
        if len(values) < 2:
            return values[0] if values else math.nan
        shared = all(root.parts == len(values) for root in self._made)
        return sum(values[1:], values[0]) / (1 if shared else len(values))

    def forget(self) -> None:
        """The step has ended."""
        self._made.clear()
        self.told = False


def _is_changed(p: Tensor, before: tuple[Tensor | None, int]) -> bool:
    gradient, version = before
    return p.grad is not gradient or (gradient is not None and gradient._version != version)
