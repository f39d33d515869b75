"""Quiet steps: a few numbers are taken, and nothing else is asked. Nearly every step is one.

Notable:
- Every step pays for what is done here, so each function is called before everything else and says whether
  that was all; if it was not, the step goes on in the ordinary way, from the same state.
- When an ordinary step has been closed it is planned up to which number the next ones are quiet: nothing
  comes before the next look, judging, or reading of the optimizers. A number that is not ordinary, as a norm
  that is not finite or a loss far above its mean, ends it at once.
- Only where nothing else could happen in between: one optimizer on the CPU, one process, no loss scale, no
  guard.
"""

from __future__ import annotations

import math
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from unvanish.clinic.watch.chronicle import BLOCK, OFTEN, Chronicle
from unvanish.clinic.watch.clock import StepClock
from unvanish.clinic.watch.deeds import DENSE, EACH
from unvanish.clinic.watch.judge import Judge
from unvanish.clinic.watch.losses import StepLosses
from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.steps import NormReader
from unvanish.clinic.watch.watched import Watched
from unvanish.probes.live.gauge import Gauge
from unvanish.probes.live.leftover import Leftover
from unvanish.probes.live.readable import is_plain_here


class QuietSteps:
    """Takes the numbers of quiet steps. `open`: whether the present step may be one."""

    def __init__(
        self,
        watched: Watched,
        pace: Pace,
        clock: StepClock,
        losses: StepLosses,
        norms: NormReader,
        chronicle: Chronicle,
        judge: Judge,
    ) -> None:
        self.watched, self.pace, self.clock, self.losses = watched, pace, clock, losses
        self.norms, self.chronicle, self.judge = norms, chronicle, judge
        self.step, self.deeds, self.trials = judge.step, judge.deeds, judge.trials
        self.finiteness, self.alertness = judge.finiteness, judge.alertness
        self.open = False
        self._begun = False  # whether the step's own part before the optimizer was done here
        self._until = 0  # number of the next step that is not quiet
        self._turn = 0  # number of the next step that reads a weight
        self._gauge: Gauge | None = None
        self._leftover: Leftover | None = None
        self._held: list[Tensor] = []

    def plan(self) -> None:
        """A step begins, and all that is due at it or later is known."""
        look, step = self.judge.look, self.step
        self._begun = False
        self._until = min(look.next, step.first + min(self.judge.verdicts.next, self.deeds.next))
        waits = look.open or self.judge.first.busy or not self.trials.idle
        self.open = step.number < self._until and not waits and self._may_be()
        self._find_turn(step.number)

    def _may_be(self) -> bool:
        """Whether nothing else can happen in a step of this training."""
        watched = self.watched
        if len(watched.references) != 1 or watched.scaler is not None or watched.parameters.sharded:
            return False
        if self.chronicle.company.exchange is not None or self.norms.whole:
            return False
        optimizer, self._gauge = watched.references[0](), self.norms.gauges.get(0)
        self._leftover, self._held = self.deeds.follow(optimizer)
        return self._gauge is not None and self._gauge.plain and self._leftover is not None

    def hear(self, roots: Any, chosen: bool) -> bool:
        """A backward of the process begins."""
        if not self.open:
            return False
        return self.losses.told or self.losses.begin_plainly(roots)

    def end_backward(self, failed: bool) -> bool:
        """The backward has ended."""
        losses = self.losses
        if not self.open or losses.open:
            return False
        if losses.plain and losses.end_plainly(failed) and not losses.told:
            self.step.loss = losses.value
        return True

    def tell(self, loss: Any) -> bool:
        """The program names the loss of the step just made."""
        row = self.chronicle.row
        if not self.open or row is None or type(loss) is not Tensor or not is_plain_here():
            return False
        if loss.ndim or not loss.is_cpu:
            return False
        row.loss = loss.item()
        return True

    def before(self, optimizer: Any, args: Any, kwargs: Any) -> bool:
        """The optimizer is about to step."""
        gauge, leftover = self._gauge, self._leftover
        if not self.open or len(args) > 1 or kwargs or gauge is None or leftover is None:
            return False
        began = perf_counter()
        if torch._C._len_torch_function_stack() or getattr(optimizer, "grad_scale", None) is not None:
            return False
        norm = gauge.read()
        if type(norm) is not float or norm - norm != 0.0:
            return False
        step = self.step
        step.norm, step.exact, step.by_closure = norm, gauge.exact, False
        step.kept = leftover.begin()
        if step.number >= self._turn:
            self.deeds.begin_turn(optimizer)
        self._begun = True
        self.clock.ours += perf_counter() - began
        return True

    def after(self, optimizer: Any, args: Any, kwargs: Any) -> bool:
        """The optimizer has stepped."""
        step, chronicle, leftover = self.step, self.chronicle, self._leftover
        before = chronicle.row
        if not self._begun or step.number + 1 >= self._until or before is None or leftover is None:
            return False
        self._begun = False
        self.clock.began = perf_counter()
        loss, rates = before.loss, self.watched.rates()
        if type(loss) is not float or not self.trials.rising.settle(loss):
            return False
        if not self.alertness.settle(step.norm, rates[0]):
            return False
        leftover.end(self._held)
        if step.number >= self._turn:
            step.turn = self.deeds.turns.end()
            self._find_turn(step.number + 1)
            self.norms.fit()
        self.losses.forget()
        row = step.close(rates, False)
        chronicle.begin(row)
        if len(chronicle.waiting) >= BLOCK or row.wall - chronicle.wrote >= OFTEN:
            chronicle.settle(False)
        self.finiteness.last = step.number
        step.number += 1
        step.norm = math.nan
        ours, seconds = self.clock.end_step()
        self.pace.step(ours, seconds, False)
        return True

    def _find_turn(self, number: int) -> None:
        """Find the next step, from this one on, that reads a weight."""
        made = number - self.step.first
        self._turn = number if made < DENSE else number + -made % EACH
