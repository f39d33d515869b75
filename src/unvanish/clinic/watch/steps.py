"""The step that is being made: its norm, read from the gradients, and what else is known of it so far."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.rows import StepRow
from unvanish.clinic.watch.watched import Watched
from unvanish.probes.live.gauge import Gauge
from unvanish.probes.live.turns import Turn

READING = 0.6  # of the budget, for the norm of every step; the rest is left for looks
FREE = 16e-6  # seconds that it may take at any budget
REFIT = 16  # steps from one adjustment of a gauge to the next: the median of step times is not free


@dataclass(slots=True)
class CurrentStep:
    """The step that is being made; it is closed into a `StepRow`, then the next one begins."""

    first: int  # number of the first step under this watch; a continued run does not begin at 0
    number: int
    norm: Any = math.nan  # of the gradients, as the optimizers see them
    kept: float = math.nan  # whether the last step's gradients were still there
    turn: Turn | None = None  # what the step did to some weights
    backwards: int = 0  # passes through the loss
    pull: Any = math.nan  # the gradient that arrived at it, if it was heard
    exact: bool = True  # whether every gradient was read for it
    loss: Any = math.nan  # as the loss module returned it
    by_closure: bool = False  # whether the optimizer makes its gradients itself
    stepped: set[int] = field(default_factory=set)  # ids of the optimizers that have stepped

    def add_norm(self, norm: Any, exact: bool) -> None:
        """Note the norm of one optimizer's gradients, joined with those of optimizers that stepped before."""
        if self.stepped:
            norm = (_square(self.norm) + _square(norm)) ** 0.5
        self.set_norm(norm, exact)

    def set_norm(self, norm: Any, exact: bool) -> None:
        """Note the norm of all gradients at once."""
        self.norm, self.exact = norm, self.exact and exact

    def close(self, rate: tuple[float, float], skipped: bool) -> StepRow:
        """The row of this step, whose norm stays readable until `advance`; `rate`: largest and smallest."""
        row = StepRow(
            self.number, time.time(), rate[0], rate[1], self.norm, math.nan, self.loss, skipped, self.exact,
            kept=self.kept, turn=self.turn, pull=self.pull, backwards=self.backwards,
        )  # fmt: skip
        self.loss = self.kept = self.pull = math.nan
        self.exact, self.turn, self.backwards = True, None, 0
        self.stepped.clear()
        return row

    @property
    def made(self) -> int:
        """Steps under this watch before this one."""
        return self.number - self.first

    def hear_backward(self, gradient: Any) -> None:
        """A backward has passed the loss with this gradient; a closure makes several of the same batch."""
        self.backwards = 1 if self.by_closure else self.backwards + 1
        self.pull = gradient if self.backwards == 1 or float(gradient) > float(self.pull) else self.pull

    def advance(self) -> None:
        """The next step begins."""
        self.number += 1
        self.norm = math.nan


class NormReader:
    """Reads the gradients' norm at every step, in parts if the whole costs more than its share of the budget.

    `whole`: never in parts, as every gradient matters to a guard, and ranks must agree.
    """

    def __init__(self, watched: Watched, pace: Pace, whole: bool) -> None:
        self.watched, self.pace, self.whole = watched, pace, whole
        self.gauges: dict[int, Gauge] = {}  # by the optimizer's id; 0: of all parameters

    def read(self, optimizer: Any, full: bool) -> tuple[Any, bool]:
        """The norm of an optimizer's gradients (None: of all), and whether all were read; `full`: read all.

        A float on the CPU, a tensor on a device; 0 without any gradient.
        """
        gauge = self.gauges.get(0 if optimizer is None else id(optimizer))
        if gauge is None:
            gauge = self._add_gauge(optimizer)
        norm = gauge.read(full)
        return (0.0 if norm is None else norm), gauge.exact

    def fit(self) -> None:
        """Read in more parts, or fewer; every now and then."""
        if self.pace.quiet:
            share = READING * self.pace.budget * self.pace.usual
            for gauge in self.gauges.values():
                gauge.fit(max(share / len(self.gauges), FREE))

    def read_own(self, optimizer: Any, full: bool) -> tuple[Any, bool]:
        """The norm that an optimizer steps by; a fused one takes the loss scale out itself."""
        norm, exact = self.read(optimizer if len(self.watched.references) > 1 else None, full)
        scale = getattr(optimizer, "grad_scale", None)
        if isinstance(scale, Tensor):
            norm = norm / scale.to(norm.device) if isinstance(norm, Tensor) else norm / float(scale)
        return norm, exact

    def _add_gauge(self, optimizer: Any) -> Gauge:
        only = None if optimizer is None else [p for g in optimizer.param_groups for p in g["params"]]
        gauge = self.watched.parameters.gauge(only)
        gauge.whole |= self.whole
        self.gauges[0 if optimizer is None else id(optimizer)] = gauge
        return gauge


def _square(value: Any) -> Any:
    return 0.0 if isinstance(value, float) and math.isnan(value) else value * value
