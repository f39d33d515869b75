"""Quiet steps: a few numbers are taken, and nothing else is asked. Nearly every step is one.

Notable:
- Every step pays for what is done here, so each function is called before everything else and says whether
  that was all; if it was not, the step goes on in the ordinary way, from the same state.
- When an ordinary step has been closed it is planned up to which number the next ones are quiet: nothing
  comes before the next look, judging, or reading of the optimizers. A number that is not ordinary, as a norm
  that is not finite or a loss far above its mean, ends it at once.
- Only where nothing else could happen in between: one optimizer on the CPU, one process, no loss scale, no
  guard.
- Loss and rate are taken at every step. If reading the gradient's norm costs more than its share of a step,
  it rests for some steps, which have none; a loss or a rate that leaves its range has it read at once.

Limits

    GAP = 16     steps from one reading of the norm to the next, at most
    WAKE = 64    steps after a number has jumped, and at the start, that all read it
    EIGHT = 8    steps after which the clock's numbers are handed on
    GROWTH = 1.1  from reading to reading, of the cost that is taken for true: a busy machine adds to it
    LOW = 0.01   of the usual norm: one as small is followed at every step
"""

from __future__ import annotations

import math
from time import perf_counter, time
from typing import Any

import torch
from torch import Tensor

from unvanish.clinic.watch.alertness import LEAP
from unvanish.clinic.watch.chronicle import Chronicle
from unvanish.clinic.watch.clock import StepClock
from unvanish.clinic.watch.deeds import DENSE, EACH
from unvanish.clinic.watch.judge import Judge
from unvanish.clinic.watch.losses import StepLosses
from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.rows import StepRow
from unvanish.clinic.watch.steps import READING, NormReader
from unvanish.clinic.watch.watched import Watched
from unvanish.probes.live.gauge import Gauge
from unvanish.probes.live.leftover import Leftover
from unvanish.probes.live.readable import is_plain_here

GAP, WAKE, EIGHT, GROWTH, LOW = 16, 64, 8, 1.1, 0.01


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
        whole: bool,
    ) -> None:
        """`whole`: every norm is read, as somebody acts on it before the step."""
        self.watched, self.pace, self.clock, self.losses = watched, pace, clock, losses
        self.norms, self.chronicle, self.judge, self.whole = norms, chronicle, judge, whole
        self.step, self.deeds, self.trials = judge.step, judge.deeds, judge.trials
        self.finiteness, self.alertness = judge.finiteness, judge.alertness
        self.rising = judge.trials.rising
        self.open = False
        self.unread = 0  # steps whose norm was not read
        self._begun = False  # whether the step's own part before the optimizer was done here
        self._rests = False  # whether it has no norm
        self._until = 0  # number of the next step that is not quiet
        self._turn = 0  # number of the next step that reads a weight
        self._due = 0  # number of the next step that reads the norm
        self._gap = 1  # steps from one reading of it to the next
        self._cost = (
            math.inf
        )  # seconds of a step that reads it: the least, which grows until it is seen again
        self._gauge: Gauge | None = None
        self._leftover: Leftover | None = None
        self._held: list[Tensor] = []
        self._rates: tuple[float, float] = (math.nan, math.nan)
        self._asked: Any = None  # what these were read from
        self._epoch = 0.0  # seconds from the clock's zero to the calendar's
        self._passed = 0  # quiet steps that the pace does not know of yet,
        self._ours = self._seconds = 0.0  # and their seconds

    def plan(self) -> None:
        """A step begins, and all that is due at it or later is known."""
        look, step, verdicts = self.judge.look, self.step, self.judge.verdicts
        self._begun = False
        self._until = min(look.next, step.first + min(verdicts.next, self.deeds.next))
        waits = look.open or self.judge.first.busy or not self.trials.idle
        self.open = step.number < self._until and not waits and self._may_be()
        if self.open:
            self._epoch = time() - perf_counter()
            self._find_turn(step.number)
            self._gap = self._choose_gap(min(step.made, step.made - verdicts.jumped))
            self._due = step.number + self._gap - 1

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

    def _choose_gap(self, since: int) -> int:
        """Steps from one reading of the norm to the next, so that it keeps to its share of the time."""
        share = READING * self.pace.budget * self.pace.usual
        if self.whole or since < WAKE or not share > 0:
            return 1
        return max(1, math.ceil(min(GAP, self._cost / share)))

    def hear(self, roots: Any, chosen: bool) -> bool:
        """A backward of the process begins."""
        return self.open and (self.losses.told or self.losses.begin_plainly(roots))

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
        losses, step = self.losses, self.step
        if losses.plain is not None and losses.settle():
            step.loss = losses.value
        if not self.open or len(args) > 1 or kwargs:
            return False
        groups = optimizer.param_groups
        rates = groups[0].get("lr") if len(groups) == 1 else [group.get("lr") for group in groups]
        if rates != self._asked:
            self._ask_rates(rates)
        number = step.number
        if number < self._due and number + 1 < self._until:
            row, loss, most = self.chronicle.row, step.loss, self.rising.most
            usual = loss is math.nan or (type(loss) is float and loss <= most)
            if usual and row is not None and type(row.loss) is float and row.loss <= most:
                self._begun = self._rests = True
                return True
        return self._read(optimizer)

    def _ask_rates(self, rates: Any) -> None:
        """Learning rates (a list, or the only one) have changed; one in a tensor may change unseen."""
        before, self._rates = self._rates[0], self.watched.rates()
        every = rates if isinstance(rates, list) else [rates]
        self._asked = None if any(isinstance(rate, Tensor) for rate in every) else rates
        if not self._rates[0] <= LEAP * before:
            self._due = self.step.number

    def _read(self, optimizer: Any) -> bool:
        """Read the norm, and what is read with it."""
        gauge, leftover = self._gauge, self._leftover
        if gauge is None or leftover is None:
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
        self._begun, self._rests = True, False
        self.clock.ours += perf_counter() - began
        return True

    def after(self, optimizer: Any, args: Any, kwargs: Any) -> bool:
        """The optimizer has stepped."""
        step, chronicle, number = self.step, self.chronicle, self.step.number
        before = chronicle.row
        if not self._begun or number + 1 >= self._until or before is None:
            return False
        self._begun = False
        began = self.clock.began = perf_counter()
        loss, rates = before.loss, self._rates
        if type(loss) is not float or not self.rising.settle(loss):
            return False
        if not self._rests and not self._end_reading(number):
            return False
        clock = self.clock
        self.losses.forget()
        now = perf_counter()
        if self._rests:
            row = StepRow(number, now + self._epoch, rates[0], rates[1])
            row.loss, row.exact, row.read = step.loss, False, False
            step.loss = math.nan
            self.unread += 1
        else:
            row = step.close(rates, False)
        chronicle.begin(row)
        step.number = number + 1
        self._passed += 1
        self._ours += clock.ours + now - began
        self._seconds += now - clock.last
        clock.ours, clock.began, clock.last = 0.0, now, now
        if self._passed >= EIGHT:
            self.settle()
        return True

    def _end_reading(self, number: int) -> bool:
        """End what was begun before the step; whether its numbers are usual ones."""
        step, leftover, usual = self.step, self._leftover, self.alertness.norm
        if leftover is None or not self.alertness.settle(step.norm, self._rates[0]):
            return False
        leftover.end(self._held)
        if number >= self._turn:
            step.turn = self.deeds.turns.end()
            self._find_turn(number + 1)
            self.norms.fit()
        self.finiteness.last = number
        dense = leftover.asks or step.norm < LOW * usual
        self._due = min(number + (1 if dense else self._gap), self._turn)
        self._cost = min(GROWTH * self._cost, self.clock.ours + perf_counter() - self.clock.began)
        return True

    def settle(self) -> None:
        """Hand on what the quiet steps so far took, and their rows if they are many or have waited long."""
        if self._passed:
            self.pace.pass_by(self._passed, self._ours, self._seconds)
            self._passed, self._ours, self._seconds = 0, 0.0, 0.0
        if self.open:
            self.chronicle.settle(False)

    def _find_turn(self, number: int) -> None:
        """Find the next step, from this one on, that reads a weight."""
        made = number - self.step.first
        self._turn = number if made < DENSE else number + -made % EACH
