"""What the rules about recurrence share: the gradient at each step of each recurrence, and its slope."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.core.depth import theil_sen
from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import Trace

LEAST = 5  # steps


@dataclass(frozen=True)
class Recurrence:
    """One recurrence, step 0 processed first; `slope`: nats a step back (negative: it shrinks going back)."""

    name: str
    kind: str
    state_log: NDArray[np.float64]
    slope: float
    horizon: float

    @property
    def ratio(self) -> float:
        """Ln of the gradient at the first step over that at the last one judged."""
        return self.slope * (len(self.state_log) - 1)


def recurrences(trace: Trace) -> list[Recurrence]:
    """Every recurrence with at least LEAST steps that get a gradient; NotApplicable where there is none."""
    if "recurrences" not in trace.derived:
        trace.derived["recurrences"] = _recurrences(trace)
    found: list[Recurrence] | None = trace.derived["recurrences"]
    if found is None:
        raise NotApplicable("nothing in the model is recurrent over five steps or more")
    if not found:
        raise NotApplicable("no recurrence has five steps that get a gradient")
    return found


def _recurrences(trace: Trace) -> list[Recurrence] | None:
    groups: dict[str, list[int]] = {}
    for i in trace.where("step"):
        groups.setdefault(str(trace.sites[i].facts["of"]), []).append(i)
    if not groups:
        return None
    return [r for name, places in groups.items() if (r := _read(trace, name, places)) is not None]


def _read(trace: Trace, name: str, places: list[int]) -> Recurrence | None:
    places = sorted(places, key=lambda i: trace.sites[i].facts["step"])
    state = np.array([trace.value(i, "state_log") for i in places])
    carry = np.array([trace.value(i, "carry_log") for i in places])
    alive = np.flatnonzero(np.isfinite(state))
    if not alive.size:
        return None
    state, carry = state[: alive[-1] + 1], carry[: alive[-1] + 1]
    if len(state) < LEAST:
        return None
    back = state[::-1]
    seen = back[np.isfinite(back)]
    if len(seen) < len(back) and np.isneginf(back).sum() > len(back) // 2 and len(seen) < LEAST:
        slope = -math.inf  # gone at once
    else:
        slope = theil_sen(seen) if len(seen) > 1 else -math.inf
    reach = theil_sen(known) if len(known := carry[::-1][np.isfinite(carry[::-1])]) > 1 else slope
    horizon = 3 / abs(reach) if reach and math.isfinite(reach) else math.inf if reach == 0 else 0.0
    return Recurrence(name, trace.sites[places[0]].kind, state, slope, horizon)
