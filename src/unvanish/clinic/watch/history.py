"""The last steps and looks of a watched training, as rules see them.

Notable: numbers of a step may wait on the device until a look brings them over; a step's row is a plain dict
from then on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unvanish.core.facts import HistoryFacts, TraceFacts
from unvanish.core.trace import Axis, Site, Trace
from unvanish.probes.live.gist import SEEN
from unvanish.probes.live.updates import MOVED
from unvanish.probes.recurrent.replay import Profile

LIVE = (*SEEN, *MOVED)
TIMES = ("state_log", "carry_log")
WINDOW = 64  # looks that rules see
STEPS = 2048  # steps that rules see
FIRST = 20  # steps whose losses are kept for good


@dataclass
class Row:
    """One step: numbers, or tensors of one number that are still on the device."""

    step: int
    wall: float
    lr: float
    norm: Any = math.nan  # as the optimizer sees it
    before: Any = math.nan  # before clipping, where it was looked at
    loss: Any = math.nan
    skipped: bool = False
    exact: bool = True  # whether the norm is measured whole, or an estimate (`probes.gauge`)

    def numbers(self) -> dict[str, Any]:
        """The row as the store and the rules want it."""
        norm, before = float(self.norm), float(self.before)
        return {
            "step": self.step,
            "wall": self.wall,
            "lr": self.lr,
            "loss": float(self.loss),
            "norm_log": _log(norm),
            "before_log": _log(before),
            "finite": int(math.isfinite(norm)),
            "skipped": int(self.skipped),
            "clipped": math.nan,
            "exact": int(self.exact),
        }


@dataclass
class History:
    """The last looks and steps, as rules see them."""

    sites: tuple[Site, ...] = ()
    axes: tuple[Axis, ...] = ()
    looks: list[NDArray[np.float64]] = field(default_factory=list)
    look_steps: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    table: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 10)))  # the rows, as an array
    ceiling: float = math.nan  # the norm that clipping leaves
    profiles: dict[str, tuple[str, Profile]] = field(
        default_factory=dict
    )  # of the recurrent layers, the last ones
    start: list[float] = field(default_factory=list)  # the losses of the run's first steps
    past: NDArray[np.float64] | None = None  # the largest values of looks that are no longer kept

    def add_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append steps; tells which of them were clipped."""
        for row in rows:
            norm, before = math.exp(row["norm_log"]), math.exp(row["before_log"])
            if before == before:
                row["clipped"] = float(norm < 0.999 * before)
                if row["clipped"]:
                    self.ceiling = norm
            elif self.ceiling == self.ceiling and norm == norm and row["exact"]:
                row["clipped"] = float(abs(norm / self.ceiling - 1) < 2e-3)
            self.rows.append(row)
            if len(self.start) < FIRST and math.isfinite(row["loss"]):
                self.start.append(row["loss"])
        if len(self.rows) > 2 * STEPS:
            del self.rows[:-STEPS]
            self.table = self.table[:0]

    def add_look(self, step: int, values: NDArray[np.float64]) -> None:
        """Append a look."""
        self.looks.append(values)
        self.look_steps.append(step)
        for old in self.looks[:-WINDOW]:
            self.past = old if self.past is None else np.fmax(self.past, old)
        del self.looks[:-WINDOW], self.look_steps[:-WINDOW]

    def trace(self, facts: TraceFacts) -> Trace:
        """The looks as a Trace; the steps are its fact "history", an array for each column."""
        shape = (0, len(self.sites), len(LIVE))
        values = np.stack(self.looks) if self.looks else np.empty(shape)
        columns = self._columns()
        sites, values = self._with_time(values)
        return Trace(
            sites,
            values,
            self.axes,
            {
                **facts,
                "steps": list(self.look_steps),
                "history": columns,
                "start": list(self.start),
                "past": self.past,
                "live": True,
            },
            (*LIVE, *TIMES),
        )

    def _columns(self) -> HistoryFacts:
        """Every column of the last steps; only rows that are new are converted."""
        names = list((self.rows or [{}])[0])
        fresh = self.rows[len(self.table) :]
        if fresh:
            rows = np.array([[float(r[k]) for k in names] for r in fresh])
            self.table = np.concatenate([self.table, rows]) if len(self.table) else rows
        return cast(HistoryFacts, {k: self.table[-STEPS:, i] for i, k in enumerate(names)})

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


def _log(value: float) -> float:
    if not math.isfinite(value):
        return value
    return math.log(value) if value > 0 else -math.inf
