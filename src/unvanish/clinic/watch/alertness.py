"""Numbers of a step that call for a judging of the rows before its turn: a norm or a rate that jumps.

Limits

    FALL = 100   times below it: as when most units die
    JUMP = 10    times the running mean of the norms
    LEAP = 4     times the learning rate of the step before; a warm-up grows by less, but for its first steps
    KEPT = 0.9   of the mean is kept from step to step
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FALL, JUMP, LEAP, KEPT = 100.0, 10.0, 4.0, 0.9


@dataclass(slots=True)
class Alertness:
    """The usual norm, and the last learning rate."""

    norm: float = math.nan
    rate: float = math.nan

    def settle(self, norm: float, rate: float) -> bool:
        """Note a step if it is near those before; whether it was."""
        mean = self.norm
        if not mean / FALL <= norm <= JUMP * mean or rate > LEAP * self.rate:  # not known either
            return False
        self.norm = KEPT * mean + (1 - KEPT) * norm
        self.rate = rate
        return True

    def reset(self, norm: float, rate: float) -> bool:
        """What is usual from here on; whether it was known before."""
        known = not math.isnan(self.norm)
        if math.isfinite(norm):
            self.norm = norm
        self.rate = rate
        return known
