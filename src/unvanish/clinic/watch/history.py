"""The last looks of a watched training, and its steps, as rules see them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unvanish.clinic.watch.rows import StepTable
from unvanish.core.facts import TraceFacts
from unvanish.core.trace import Axis, Site, Trace
from unvanish.probes.live.summaries import SEEN
from unvanish.probes.live.updates import MOVED
from unvanish.probes.recurrent.profile import Profile

LIVE = (*SEEN, *MOVED)
TIMES = ("state_log", "carry_log")
WINDOW = 64  # looks that rules see


@dataclass
class History:
    """The last looks and steps, as rules see them."""

    sites: tuple[Site, ...] = ()
    axes: tuple[Axis, ...] = ()
    looks: list[NDArray[np.float64]] = field(default_factory=list)
    look_steps: list[int] = field(default_factory=list)
    past: NDArray[np.float64] | None = None  # the largest values of looks that are no longer kept
    profiles: dict[str, tuple[str, Profile]] = field(default_factory=dict)  # the last of each recurrent layer
    steps: StepTable = field(default_factory=StepTable)

    def add_look(self, step: int, values: NDArray[np.float64]) -> None:
        """Append a look."""
        self.looks.append(values)
        self.look_steps.append(step)
        for old in self.looks[:-WINDOW]:
            self.past = old if self.past is None else np.fmax(self.past, old)
        del self.looks[:-WINDOW], self.look_steps[:-WINDOW]

    def is_long(self, limit: float) -> bool:
        """Whether the last look's step changed more than this share of the weights, in the middle of them."""
        places = [
            i for i, s in enumerate(self.sites) if s.role == "parameter" and s.facts.get("dimensions", 0) > 1
        ]
        if not self.looks or not places or len(self.looks[-1]) != len(self.sites):
            return False
        known = self.looks[-1][places, LIVE.index("update_log")]
        known = known[np.isfinite(known)]
        return bool(len(known)) and float(np.median(known)) > math.log(limit)

    def replace_look(self, step: int, values: NDArray[np.float64]) -> None:
        """More is known of a look; nothing happens if it is no longer kept, or was of other sites."""
        if step in self.look_steps and len(values) == len(self.sites):
            self.looks[self.look_steps.index(step)] = values

    def trace(self, facts: TraceFacts) -> Trace:
        """The looks as a Trace; the steps are its fact "history", an array for each column."""
        shape = (0, len(self.sites), len(LIVE))
        values = np.stack(self.looks) if self.looks else np.empty(shape)
        sites, values = self._with_time(values)
        return Trace(
            sites,
            values,
            self.axes,
            {
                **facts,
                "steps": list(self.look_steps),
                "history": self.steps.columns(),
                "start": list(self.steps.start),
                "past": self.past,
                "live": True,
            },
            (*LIVE, *TIMES),
        )

    def _with_time(self, values: NDArray[np.float64]) -> tuple[tuple[Site, ...], NDArray[np.float64]]:
        """The sites, one for each time step of the profiles too, and values with the columns `TIMES`."""
        steps = [(n, kind, p, t) for n, (kind, p) in self.profiles.items() for t in range(len(p.state_log))]
        more = tuple(
            Site.step(name, kind, t, {"of": name, "step": t, "steps": len(p.state_log), "module": name})
            for name, kind, p, t in steps
        )
        shape = (values.shape[0], values.shape[1] + len(more), len(LIVE) + len(TIMES))
        whole = np.full(shape, math.nan)
        whole[:, : values.shape[1], : len(LIVE)] = values
        for row, (_, _, profile, t) in enumerate(steps, values.shape[1]):
            whole[:, row, len(LIVE) :] = profile.state_log[t], profile.carry_log[t]
        return self.sites + more, whole
