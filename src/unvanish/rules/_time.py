"""The gradient at each step of each recurrence, and its slope.

Limits

Of the reading over time:

    LEAST = 5   steps with a gradient: the slope of fewer says little
    REACH = 3   nats: the horizon is the number of steps back at which a twentieth is left, as far
                as the `limit` over the depth
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.core.depth import theil_sen
from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import Trace

LEAST = 5
REACH = 3


@dataclass(frozen=True)
class TimeReading:
    """One recurrence, step 0 first; `slope`: nats a step back (negative: it shrinks going back)."""

    name: str
    kind: str
    state_log: NDArray[np.float64]
    slope: float
    horizon: float

    @property
    def steps(self) -> int:
        """How many steps were judged."""
        return len(self.state_log)

    @property
    def ratio(self) -> float:
        """Ln of the gradient at the first step over that at the last one judged."""
        return self.slope * (self.steps - 1)


def read(trace: Trace) -> list[TimeReading]:
    """Every recurrence with at least LEAST steps that get a gradient; NotApplicable if there is none."""
    if "recurrences" not in trace.derived:
        trace.derived["recurrences"] = _read_all(trace)
    found: list[TimeReading] | None = trace.derived["recurrences"]
    if found is None:
        raise NotApplicable("nothing in the model is recurrent over five steps or more")
    if not found:
        raise NotApplicable("no recurrence has five steps that get a gradient")
    return found


def _read_all(trace: Trace) -> list[TimeReading] | None:
    groups: dict[str, list[int]] = {}
    for i in trace.where("step"):
        groups.setdefault(str(trace.sites[i].facts["of"]), []).append(i)
    if not groups:
        return None
    return [r for name, places in groups.items() if (r := _read_one(trace, name, places)) is not None]


def _read_one(trace: Trace, name: str, places: list[int]) -> TimeReading | None:
    places = sorted(places, key=lambda i: trace.sites[i].facts["step"])
    state = np.array([trace.value(i, "state_log") for i in places])
    carry = np.array([trace.value(i, "carry_log") for i in places])
    alive = np.flatnonzero(np.isfinite(state))
    if not alive.size:
        return None
    state, carry = state[: alive[-1] + 1], carry[: alive[-1] + 1]
    if len(state) < LEAST:
        return None
    slope = _slope_back(state)
    return TimeReading(name, trace.sites[places[0]].kind, state, slope, _horizon(carry, slope))


def _slope_back(state: NDArray[np.float64]) -> float:
    """Nats a step back; -inf if the gradient is gone at once."""
    back = state[::-1]
    known = back[np.isfinite(back)]
    gone = len(known) < min(len(back), LEAST) and np.isneginf(back).sum() > len(back) // 2
    return -math.inf if gone or len(known) < 2 else theil_sen(known)


def _horizon(carry: NDArray[np.float64], slope: float) -> float:
    """Steps back at which REACH nats are lost."""
    back = carry[::-1]
    known = back[np.isfinite(back)]
    reach = theil_sen(known) if len(known) > 1 else slope
    if reach == 0:
        return math.inf
    return REACH / abs(reach) if math.isfinite(reach) else 0.0
