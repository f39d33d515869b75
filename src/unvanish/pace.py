"""When a watched training looks: the interval that holds a budget, by measurement.

Notable: what the watch spends is timed, and the next look comes when the share of the time spent so far would
allow it; expensive first looks are paid off before the interval settles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LONGEST = 10_000  # steps between two looks, at most
EARLY = (1, 2, 3)  # steps that are looked at whatever they cost: a fault at the start is the commonest
SAFETY = 1.25  # our clock does not see all that a look costs: dispatch, caches


@dataclass
class Pace:
    """The budget of a run: `budget` as a share of its time, or a fixed interval `every`."""

    budget: float
    every: int | None = None
    spent: float = 0.0  # seconds of ours
    elapsed: float = 0.0  # seconds of the run, ours among them
    steps: int = 0
    looks: int = 0
    each: float = 0.0  # what a step costs that is not looked at, a running mean
    look: float = 0.0  # what a look costs beside it, a running mean
    warm: float = 0.0  # seconds before the first step was finished, not counted

    def step(self, ours: float, seconds: float) -> None:
        """A step took so many seconds, so many of them ours."""
        self.steps += 1
        self.spent += ours
        self.elapsed += seconds

    def quiet(self, ours: float) -> None:
        """What a step without a look cost us."""
        self.each += (ours - self.each) / min(self.steps + 1, 50)

    def looked(self, ours: float) -> None:
        """What a step with a look cost us."""
        self.looks += 1
        extra = max(ours - self.each, 0.0)
        self.look = extra if self.looks <= 2 else self.look + (extra - self.look) / min(self.looks, 8)

    @property
    def overhead(self) -> float:
        """The share of the run's time that was ours; NaN before the first step."""
        own = self.elapsed - self.spent
        return self.spent / own if own > 0 else math.nan

    def interval(self, step: int) -> int:
        """How many steps after `step` to look next."""
        if self.every is not None:
            return self.every
        early = [s - step for s in EARLY if s > step]
        if early:
            return early[0]
        typical = (self.elapsed - self.spent) / max(1, self.steps)
        room = self.budget * typical - SAFETY * self.each  # what a step leaves for looks
        if room <= 0:
            return LONGEST
        debt = SAFETY * (self.spent + self.look) - self.budget * (self.elapsed - self.spent)
        return max(1, min(LONGEST, math.ceil(max(debt, SAFETY * self.look) / room)))
