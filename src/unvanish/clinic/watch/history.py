"""The last steps and looks of a watched training, as rules see them.

Notable: numbers of a step may wait on the device until a look brings them over; from then on the step's row
is a plain dict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unvanish.core.facts import TraceFacts
from unvanish.core.run_facts import HistoryFacts
from unvanish.core.trace import Axis, Site, Trace
from unvanish.probes.live.summaries import SEEN
from unvanish.probes.live.turns import COLUMNS, Turn
from unvanish.probes.live.updates import MOVED
from unvanish.probes.recurrent.profile import Profile

LIVE = (*SEEN, *MOVED)
TIMES = ("state_log", "carry_log")
WINDOW = 64  # looks that rules see
STEPS = 2048  # steps that rules see
UNCLIPPED = math.log(0.999)  # a norm that is smaller than before by more was clipped
SAME = 2e-3  # apart in logs at most: a norm that clipping left
UNREAD = dict.fromkeys(COLUMNS, math.nan)
FIRST = 20  # steps whose losses are kept for good


@dataclass(slots=True)
class StepRow:
    """One step: numbers, or tensors of one number that are still on the device."""

    step: int
    wall: float
    lr: float  # the largest of all groups
    low: float  # the smallest
    norm: Any = math.nan  # as the optimizer sees it
    before: Any = math.nan  # before clipping, if it was looked at
    loss: Any = math.nan
    skipped: bool = False
    exact: bool = True  # whether the norm is measured whole, or an estimate (`probes.live.gauge`)
    kept: float = math.nan  # whether the last step's gradients were still there (`probes.live.leftover`)
    turn: Turn | None = None  # what it did to some weights
    pull: Any = math.nan  # the gradient that arrived at the loss
    backwards: int = 0  # passes through the loss

    def numbers(self) -> dict[str, Any]:
        """The row as the store and the rules read it."""
        norm, before = float(self.norm), float(self.before)
        return {
            "step": self.step,
            "wall": self.wall,
            "lr": self.lr,
            "low": self.low,
            "loss": float(self.loss),
            "norm_log": _log(norm),
            "before_log": _log(before),
            "finite": int(math.isfinite(norm)),
            "skipped": int(self.skipped),
            "clipped": math.nan,
            "exact": int(self.exact),
            "kept": self.kept,
            "pull": float(self.pull),
            "backwards": self.backwards,
            **UNREAD,
        }


@dataclass
class StepTable:
    """The last steps, as rules see them."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    start: list[float] = field(default_factory=list)  # the losses of the run's first steps
    ceiling: float = math.nan  # the norm that clipping leaves
    _table: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)), init=False)  # of the rows

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append steps, and note in each whether it was clipped."""
        for row in rows:
            self._mark_clipped(row)
            self.rows.append(row)
            if len(self.start) < FIRST and math.isfinite(row["loss"]):
                self.start.append(row["loss"])
        if len(self.rows) > 2 * STEPS:
            del self.rows[:-STEPS]
            self._table = self._table[:0]

    def columns(self) -> HistoryFacts:
        """Every column of the last steps; only rows that are new are converted."""
        names = list((self.rows or [{}])[0])
        fresh = self.rows[len(self._table) :]
        if fresh:
            rows = np.array(_read_columns(fresh, names), np.float64)
            self._table = np.concatenate([self._table, rows]) if len(self._table) else rows
        return cast(HistoryFacts, {k: self._table[-STEPS:, i] for i, k in enumerate(names)})

    def _mark_clipped(self, row: dict[str, Any]) -> None:
        """Compare the norms before and after clipping, or the norm with the one that clipping leaves."""
        norm, before = row["norm_log"], row["before_log"]
        if not math.isnan(before):
            row["clipped"] = float(norm - before < UNCLIPPED)
            if row["clipped"] and math.isfinite(norm):
                self.ceiling = norm
        elif math.isfinite(self.ceiling) and math.isfinite(norm) and row["exact"]:
            row["clipped"] = float(abs(norm - self.ceiling) < SAME)


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


def _read_columns(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[Any]:
    """These columns of each row; NaN where one is missing."""
    if all(len(row) == len(names) for row in rows):
        return list(map(itemgetter(*names), rows))
    return [[row.get(name, math.nan) for name in names] for row in rows]


def _log(value: float) -> float:
    if not math.isfinite(value):
        return value
    return math.log(value) if value > 0 else -math.inf
