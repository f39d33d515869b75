"""Where a number that drifts in a watched training is going, and when it will be there.

Limits

Of what is followed over the looks:

    FOLLOWED = 12    known at least: fewer show no direction
    RECENT = 36      that say where it goes: the last third of them against the one before. Slopes
                     over thirds of eight looks waver so much by noise that steady drifts of
                     attention logits were taken to flatten
    WAY = 0.667      of the way from its start to the limit lies behind it
    STEADY = 0.8     of the pairs of late looks agree in the direction
    KEEPS = 0.6      of its earlier slope is left: what flattens arrives nowhere. What grows by
                     equal amounts loses about so much, seen as a logarithm
    LEFT = 0.2       of its mean slope since the start is left, too
    BEGINNING = 3    looks whose median is the start
    AHEAD = 1        times as far as was looked back: a forecast reaches no farther
    PARTS = 3        of the recent looks: the last one against the one before
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unvanish.core.trace import Trace
from unvanish.rules import _history
from unvanish.rules._history import Floats

FOLLOWED, RECENT, BEGINNING = 12, 36, 3
WAY, STEADY, KEEPS, LEFT, AHEAD, PARTS = 0.667, 0.8, 0.6, 0.2, 1, 3


@dataclass(frozen=True)
class LimitCrossing:
    """A number on its way to a limit: what it was, what it is, its slope a step, the steps that are left."""

    start: float
    now: float
    slope: float
    steps: float

    def describe(self) -> str:
        """When, in words."""
        return f"at this rate in about {round_steps(self.steps)} steps"


def round_steps(steps: float) -> str:
    """A number of steps with one digit, or two."""
    digits = len(str(int(steps))) - 1
    rounded = round(steps, -digits) if digits else max(1, math.ceil(steps))
    return f"{rounded:,.0f}".replace(",", " ")


def find_crossing(steps: Floats, values: Floats, limit: float) -> LimitCrossing | None:
    """Whether a number moves to a limit that it has not reached, steadily and without flattening.

    `steps`, `values`: of the looks, NaN where nothing was measured.
    """
    known = np.isfinite(values)
    at, seen = np.asarray(steps, np.float64)[known], values[known]
    if len(seen) < FOLLOWED:
        return None
    begun, start, now = at[0], float(np.median(seen[:BEGINNING])), float(np.median(seen[-BEGINNING:]))
    whole = limit - start
    if not whole or not WAY <= (now - start) / whole < 1:
        return None
    at, seen = at[-RECENT:], seen[-RECENT:]
    third = len(seen) // PARTS
    late, agreed = _slope(at[-third:], seen[-third:])
    middle, _ = _slope(at[third : 2 * third], seen[third : 2 * third])
    toward = math.copysign(1.0, whole)
    mean = LEFT * abs(now - start) / (at[-1] - begun)
    if agreed * toward < 2 * STEADY - 1 or late * toward < max(KEEPS * middle * toward, mean):
        return None
    left = (limit - now) / late if late else math.inf
    return LimitCrossing(start, now, late, left) if 0 < left <= AHEAD * (at[-1] - begun) else None


@dataclass(frozen=True)
class FirstCrossing:
    """Of several sites on their way to a limit the one that is there first, and all of them in this order."""

    site: int
    crossing: LimitCrossing
    sites: list[int]


def find_first(found: Mapping[int, LimitCrossing | None]) -> FirstCrossing | None:
    """The first of these sites to cross its limit; None if none is on its way."""
    known = {i: crossing for i, crossing in found.items() if crossing is not None}
    sites = sorted(known, key=lambda i: (known[i].steps, i))
    return FirstCrossing(sites[0], known[sites[0]], sites) if sites else None


def _slope(at: Floats, values: Floats) -> tuple[float, float]:
    """The median slope between all pairs (Theil 1950, Sen 1968), and the mean of the slopes' signs."""
    i, j = np.triu_indices(len(at), 1)
    slopes = (values[j] - values[i]) / (at[j] - at[i])
    return float(np.median(slopes)), float(np.mean(np.sign(slopes)))


def follow(
    trace: Trace, site: int, statistic: str, limit: float, *, log: bool = False
) -> LimitCrossing | None:
    """The crossing of a statistic of a site; `log`: its logarithm is followed, and the limit's."""
    values = _history.read_looks(trace, [site], statistic)[:, 0]
    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            values, limit = np.log(values), math.log(limit)
    return find_crossing(read_looked(trace), values, limit)


def read_looked(trace: Trace) -> Floats:
    """The steps of the looks; their numbers, if the steps are unknown."""
    return np.asarray(trace.facts.get("steps", range(len(trace.values))), np.float64)
