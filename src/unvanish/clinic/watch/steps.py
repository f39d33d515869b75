"""The step that is being made: its norm, read from the gradients, and what else is known of it so far."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unvanish.clinic.watch.history import StepRow
from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.watched import Watched
from unvanish.probes.live.gauge import Gauge

READING = 0.6  # of the budget, for the norm of every step; the rest is left for looks
REFIT = 16  # steps from one adjustment of a gauge to the next: the median of step times is not free


@dataclass(slots=True)
class CurrentStep:
    """The step that is being made; it is closed into a `StepRow`, then the next one begins."""

    first: int  # number of the first step under this watch; a continued run does not begin at 0
    number: int
    norm: Any = math.nan  # of the gradients, as the optimizers see them
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

    def close(self, rate: float, skipped: bool) -> StepRow:
        """The row of this step, whose norm stays readable until `advance`."""
        row = StepRow(self.number, time.time(), rate, self.norm, math.nan, self.loss, skipped, self.exact)
        self.loss, self.exact = math.nan, True
        self.stepped.clear()
        return row

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
        if self.pace.quiet and self.pace.steps % REFIT == 0:
            share = READING * self.pace.budget * self.pace.usual
            gauge.fit(share / max(1, len(self.watched.references)))
        norm = gauge.read(full)
        return (0.0 if norm is None else norm), gauge.exact

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
