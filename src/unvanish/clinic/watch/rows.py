"""The rows of the last steps: one object a step while it is new, then a table of numbers.

Notable: numbers of a step may wait on the device until a look brings them over; rows enter the table in
blocks, a column at a time, as every step pays for what is done with its row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from unvanish.core.run_facts import HistoryFacts, StepColumn
from unvanish.probes.live.turns import Turn
from unvanish.store.schema import STEP_COLUMNS

STEPS = 2048  # steps that rules see
UNCLIPPED = math.log(0.999)  # a norm that is smaller than before by more was clipped
SAME = 2e-3  # apart in logs at most: a norm that clipping left
READ = 4  # readings of weights, of which none moved: they are looked at soon
DIES, GREW = 8, 0.2  # readings, in which that much more of the gradients is zero than at first: as well
FIRST = 20  # steps whose losses are kept for good

NAMES: tuple[StepColumn, ...] = get_args(StepColumn)
PLACE: dict[str, int] = {name: i for i, name in enumerate(NAMES)}
WHOLE = ("step", "finite", "skipped")  # columns that the store keeps as whole numbers
AS_THEY_ARE = ("step", "wall", "lr", "low", "loss", "skipped", "exact", "kept", "pull", "backwards")
_read = attrgetter(*AS_THEY_ARE, "norm", "before", "read")

Floats = NDArray[np.float64]


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
    read: bool = True  # whether the norm was read at all


def tabulate(rows: Sequence[StepRow]) -> Floats:
    """These rows as rules and the store read them, shape (rows, NAMES); NaN: not measured."""
    for row in rows:
        if type(row.loss) is not float or type(row.norm) is not float:
            row.loss, row.norm = float(row.loss), float(row.norm)
        row.before, row.pull = float(row.before), float(row.pull)
    known = np.fromiter(chain.from_iterable(map(_read, rows)), np.float64).reshape(len(rows), -1)
    table = np.full((len(rows), len(NAMES)), math.nan)
    table[:, [PLACE[name] for name in AS_THEY_ARE]] = known[:, :-3]
    norm, before, read = known[:, -3:].T
    with np.errstate(divide="ignore", invalid="ignore"):
        table[:, PLACE["norm_log"]], table[:, PLACE["before_log"]] = _log(norm), _log(before)
    table[:, PLACE["finite"]] = np.isfinite(norm) | (read == 0)
    return table


def list_for_store(table: Floats) -> list[tuple[Any, ...]]:
    """Rows of a table with the store's columns."""
    columns = [table[:, PLACE[name]] for name in STEP_COLUMNS]
    pairs = zip(STEP_COLUMNS, columns, strict=True)
    return list(zip(*((c.astype(np.int64) if n in WHOLE else c).tolist() for n, c in pairs), strict=True))


@dataclass
class StepTable:
    """The last steps, as rules see them."""

    start: list[float] = field(default_factory=list)  # the losses of the run's first steps
    ceiling: float = math.nan  # the norm that clipping leaves
    _table: Floats = field(default_factory=lambda: np.empty((2 * STEPS, len(NAMES))), init=False)
    _count: int = field(default=0, init=False)  # of rows in it

    def add(self, table: Floats) -> None:
        """Append steps, and note in each row of the given table whether it was clipped."""
        self._mark_clipped(table)
        if len(self.start) < FIRST:
            losses = table[:, PLACE["loss"]]
            self.start += losses[np.isfinite(losses)][: FIRST - len(self.start)].tolist()
        for low in range(0, len(table), STEPS):
            self._append(table[low : low + STEPS])

    def add_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append steps by their columns; what a row lacks was not measured."""
        table = np.array([[row.get(name, math.nan) for name in NAMES] for row in rows], np.float64)
        self.add(table.reshape(-1, len(NAMES)))

    def _append(self, table: Floats) -> None:
        if self._count + len(table) > len(self._table):
            kept = min(STEPS, self._count)
            self._table[:kept] = self._table[self._count - kept : self._count].copy()
            self._count = kept
        self._table[self._count : self._count + len(table)] = table
        self._count += len(table)

    def columns(self) -> HistoryFacts:
        """Every column of the last steps, as copies."""
        last = self._table[max(0, self._count - STEPS) : self._count].T.copy()
        return cast(HistoryFacts, dict(zip(NAMES, last, strict=True)))

    @property
    def rows(self) -> list[dict[str, float]]:
        """The last steps, a dict for each."""
        return [dict(zip(NAMES, row, strict=True)) for row in self._table[: self._count].tolist()]

    @property
    def stands(self) -> bool:
        """Whether no weight that was read moved in the last readings."""
        change = self._table[: self._count, PLACE["update_log"]]
        known = change[~np.isnan(change)][-READ:]
        return len(known) == READ and bool((known == -math.inf).all())

    @property
    def dies(self) -> bool:
        """Whether more of the gradients is exactly zero in the last readings than in the first."""
        nil = self._table[: self._count, PLACE["nil"]]
        known = nil[~np.isnan(nil)]
        return len(known) >= 2 * DIES and bool(known[-DIES:].mean() > known[:DIES].mean() + GREW)

    @property
    def last_loss(self) -> float:
        """The loss of the last step; NaN without one."""
        return float(self._table[self._count - 1, PLACE["loss"]]) if self._count else math.nan

    def _mark_clipped(self, table: Floats) -> None:
        """Compare the norms before and after clipping, or the norm with the one that clipping leaves."""
        norm, before = table[:, PLACE["norm_log"]], table[:, PLACE["before_log"]]
        clipped, exact = table[:, PLACE["clipped"]], table[:, PLACE["exact"]] == 1
        begin = 0
        for row in (*np.flatnonzero(~np.isnan(before)).tolist(), len(table)):
            if begin < row and math.isfinite(self.ceiling):
                between = slice(begin, row)
                told = np.isfinite(norm[between]) & exact[between]
                with np.errstate(invalid="ignore"):
                    same = np.abs(norm[between] - self.ceiling) < SAME
                clipped[between] = np.where(told, same, clipped[between])
            if row < len(table):
                now, was = float(norm[row]), float(before[row])
                clipped[row] = now - was < UNCLIPPED
                if clipped[row] and math.isfinite(now):
                    self.ceiling = now
            begin = row + 1


def _log(values: Floats) -> Floats:
    """Ln of norms; 0 is -inf, and what is not finite stays as it is."""
    return np.where(np.isfinite(values), np.log(values), values)
