"""The loss of every step, read where its backward begins; nobody has to tell it.

Notable: a backward is one of this training if it changed the gradient of one of a few parameters, so in a
program of several models each watch has its own. Of several backwards in a step those of an accumulation are
added if each was divided by their number, or if they are known to add up; else their mean is taken.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from unvanish.clinic.watch.watched import Watched
from unvanish.probes.live.examination import find_root
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.loss_roots import FACTORS, LossRoot, find_factors, read_root
from unvanish.probes.live.readable import find_obstacle, is_plain_here

ASKED = 8  # parameters, evenly spaced
CAREFUL = 64  # backwards that are followed by all of them, if one alone has told nothing


class StepLosses:
    """The losses of the backwards of the present step; `told`: somebody else knows the loss."""

    def __init__(self, watched: Watched, guard: WatchGuard) -> None:
        self._watched, self._guard, parameters = watched, guard, watched.parameters.parameters
        step = max(1, len(parameters) // ASKED)
        self._asked = [*parameters[::step], *parameters[-1:]]
        self._place = len(self._asked) - 1  # of the one whose gradient the last backward changed
        self._root: LossRoot | None = None  # of the backward that runs
        self._before: list[Tensor | None] = []  # gradients when it began
        self._versions: list[int] = []  # theirs
        self._made: list[LossRoot | float] = []  # a float: one that began plainly
        self.plain: float | None = None  # the loss of the last backward, if it is open whose it was
        self._was: Tensor | None = None  # the gradient of one parameter then
        self._edition = -1  # its version
        self._careful = 0  # backwards that are followed by all of the parameters
        self.told = False

    def begin(self, roots: Any, scale: float) -> int:
        """A backward begins; log2 of its loss scale."""
        self.settle()
        root = None if find_obstacle() else find_root(roots)
        if root is None:
            self._root = None
            return 0
        if self._made and not self._gathers():
            self._made.clear()
        self._remember(read_root(root, scale, self._find_factors))
        return self._root.scale_log2 if self._root is not None else 0

    def _find_factors(self, root: Tensor) -> list[float]:
        return self._guard.read("what the loss is multiplied by", find_factors, root) or []

    def begin_plainly(self, roots: Any) -> bool:
        """A backward begins; whether its loss is one that has nothing to ask for, and was read.

        Whose it is, is asked when the next backward or the step comes (`settle`). Only one parameter is
        asked: if it has no gradient when a backward begins, the others have none.
        """
        if self.plain is not None:
            self.settle()
        if self._careful or type(roots) is not tuple or len(roots) != 1 or not is_plain_here():
            self._careful = max(0, self._careful - 1)
            return False
        root = roots[0]
        if type(root) is not Tensor or root.ndim or not root.is_cpu:
            return False
        node = root.grad_fn
        if node is None or type(node).__name__ in FACTORS:
            return False
        self._was = was = self._asked[self._place].grad
        if self._made and was is None and not self._gathers():
            self._made.clear()
        self.plain = root.item()
        self._edition = -1 if was is None else was._version
        return True

    def settle(self) -> bool:
        """Whether the loss of the last backward that began plainly is one of this training's."""
        value, was, self.plain, self._was = self.plain, self._was, None, None
        if value is None:
            return False
        now = self._asked[self._place].grad
        if now is was and (now is None or now._version == self._edition):
            if was is not None:
                self._careful = CAREFUL  # it may be of use at times only
                return False
            if not self._gathers():
                return False
        self._made.append(value)
        return True

    def _gathers(self) -> bool:
        """Whether what earlier backwards of this step gave is still there."""
        return any(p.grad is not None for p in self._asked)

    def drop(self) -> None:
        """The backward that began plainly has failed."""
        self.plain = self._was = None

    def _remember(self, root: LossRoot) -> None:
        """Note the loss, and the gradients that a backward of this training would change."""
        self._root = root
        self._before = before = [p.grad for p in self._asked]
        self._versions = [-1 if g is None else g._version for g in before]

    @property
    def open(self) -> bool:
        """Whether a backward runs whose loss was read."""
        return self._root is not None

    def end(self, failed: bool) -> bool:
        """The backward has ended; whether its loss is one of this training's."""
        root, self._root = self._root, None
        if root is None or failed:
            self._before = []
            return False
        changed = self._has_changed(self._place) or self._find_change()
        self._before = []
        if changed:
            self._made.append(root)
        return changed

    def _find_change(self) -> bool:
        """Whether any of the gradients has changed."""
        for place in range(len(self._asked)):
            if self._has_changed(place):
                self._place = place
                return True
        return False

    def _has_changed(self, place: int) -> bool:
        before, now = self._before[place], self._asked[place].grad
        return now is not before or (now is not None and now._version != self._versions[place])

    @property
    def value(self) -> Any:
        """The loss of the step so far: a number, a tensor of one on a device, or NaN."""
        if len(self._made) < 2:
            only = self._made[0] if self._made else math.nan
            return only if type(only) is float else only.value  # type: ignore[union-attr]
        roots = [LossRoot(made) if isinstance(made, float) else made for made in self._made]
        values = [root.value for root in roots]
        shared = self._watched.summed or all(root.parts == len(values) for root in roots)
        return sum(values[1:], values[0]) / (1 if shared else len(values))

    def forget(self) -> None:
        """The step has ended."""
        self._made.clear()
        self.told = False
