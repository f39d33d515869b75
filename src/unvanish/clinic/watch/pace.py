"""When a watched training looks: the interval that holds a budget, by measurement.

Notable: the watch times itself, and it also compares steps with a look to steps without one, because its own
clock misses part of what a look costs. The next look comes when the share of the time spent so far allows it;
expensive first looks are paid off before the interval settles.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field

LONGEST = 10_000  # steps between two looks, at most
EARLY = (1, 2, 3)  # steps with a look at any cost: most faults are there from the start
CREDIT = 1.0  # seconds: so long as looks took less, they come at steps 4, 8, 16, ... as well
ENOUGH, MANY = 8, 500  # looks that judge a run; steps of which fewer looks are worth a word
DOUBLE = 2  # times the steps so far, to the next of these
SAFETY = 1.2  # of all estimates


@dataclass
class Pace:
    """The budget of a run: `budget` as a share of its time, or a fixed interval `every`."""

    budget: float
    every: int | None = None
    steps: int = 0
    looks: int = 0
    jumped: int = 0  # the step from which looks are dense again; those of the start count from 0
    elapsed: float = 0.0  # seconds of the run, ours among them
    own: float = 0.0  # seconds of ours, by our own clock
    each: float = 0.0  # seconds of ours in a step without a look, a running mean
    look: float = 0.0  # seconds that a look adds to it, a running mean
    quiet: deque[float] = field(default_factory=lambda: deque(maxlen=64))  # seconds of steps without a look
    looked: deque[float] = field(default_factory=lambda: deque(maxlen=16))  # seconds of steps with one

    def step(self, ours: float, seconds: float, look: bool) -> None:
        """A step took `seconds`, and `ours` of them were the watch's by its own clock."""
        self.steps += 1
        self.elapsed += seconds
        self.own += ours
        (self.looked if look else self.quiet).append(seconds)
        if look:
            self.looks += 1
            extra = max(ours - self.each, 0.0)
            self.look = extra if self.looks <= 2 else self.look + (extra - self.look) / min(self.looks, 8)
        else:
            self.each += (ours - self.each) / min(self.steps - self.looks, 50)

    def pass_by(self, steps: int, ours: float, seconds: float) -> None:
        """Some steps without a look took `seconds` together, and `ours` of them were the watch's."""
        self.steps += steps
        self.elapsed += seconds
        self.own += ours
        self.quiet.append(seconds / steps)
        self.each += (ours / steps - self.each) * min(1.0, steps / min(self.steps - self.looks, 50))

    def spend(self, seconds: float) -> None:
        """An experiment took `seconds` of ours, beside the step's own time."""
        self.own += seconds
        self.elapsed += seconds

    @property
    def usual(self) -> float:
        """Seconds of a step without a look, without what is ours in each; NaN before the first."""
        return max(statistics.median(self.quiet) - self.each, 0.0) if self.quiet else math.nan

    @property
    def cost(self) -> float:
        """Seconds that a look adds to a step: by our own clock or by the steps' times, the larger one."""
        if len(self.looked) < 5 or len(self.quiet) < 5:
            return self.look
        return max(self.look, statistics.median(self.looked) - statistics.median(self.quiet))

    @property
    def spent(self) -> float:
        """Seconds of ours: by our own clock or by what looks added to the steps' times, the larger one."""
        return max(self.own, self.each * self.steps + self.cost * self.looks)

    @property
    def overhead(self) -> float:
        """The share of the run's time that was ours; NaN before the second step."""
        rest = self.elapsed - self.spent
        return self.spent / rest if rest > 0 else math.nan

    def describe_sight(self) -> str:
        """How little of a run was looked at, if too little to judge activations and depth, or nothing."""
        if self.looks >= ENOUGH or self.steps < MANY:
            return ""
        return (
            f"{self.looks} looks in {self.steps:,} steps: short of judging activations and depth; of every "
            "step gradient, rate and loss were judged. A larger budget= or every= looks more often"
        )

    def interval(self, step: int) -> int:
        """The number of steps from `step` to the next look."""
        if self.every is not None:
            return self.every
        early = [s - step for s in EARLY if s > step]
        if early:
            return early[0]
        planned, since = self._plan(), step - self.jumped
        if self.own + self.cost < CREDIT and since < LONGEST:
            return min(planned, max(1, (DOUBLE - 1) * since))
        return planned

    @property
    def affords(self) -> bool:
        """Whether another look may come out of its turn."""
        return self.every is None and self.own + self.cost < CREDIT

    def hasten(self, step: int) -> int | None:
        """Something happened at this step: steps to the next look, if the credit allows; None: as planned."""
        if not self.affords:
            return None
        self.jumped = step
        return 1

    def _plan(self) -> int:
        """The number of steps to the next look that the budget allows."""
        rest = max(self.elapsed - self.spent, 0.0)
        room = self.budget * rest / max(1, self.steps) - SAFETY * self.each  # what a step leaves for looks
        if room <= 0:
            return LONGEST
        debt = SAFETY * (self.spent + self.cost) - self.budget * rest
        return max(1, min(LONGEST, math.ceil(max(debt, SAFETY * self.cost) / room)))
