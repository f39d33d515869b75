"""Steps and looks of shards, joined as they come: on the first rank, in the thread of its exchange."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.store.joining import Holding, join_cells, join_columns
from unvanish.store.records import Record
from unvanish.store.schema import PARTS, STEP_COLUMNS

OPEN = 4096  # steps that may wait for a rank
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Joined:
    """Steps as rules see them, and looks (step, values) at the sites of the first rank."""

    steps: list[dict[str, Any]]
    looks: list[tuple[int, Floats]]


@dataclass
class Arrivals:
    """How far a rank has come, and the sites of its samples."""

    holding: Holding
    last: int = -1
    statistics: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)


class Merging:
    """Parts of steps and looks, until all ranks of the first one's layout have sent theirs."""

    def __init__(self, own: Holding) -> None:
        self.own = own
        self._reached: dict[int, Arrivals] = {}
        self._steps: dict[int, dict[int, tuple[Any, ...]]] = {}  # step: rank: row
        self._looks: dict[int, dict[int, bytes]] = {}

    def add(self, holding: Holding, records: Iterable[Record]) -> None:
        """Take what a rank recorded."""
        reach = self._reached.setdefault(holding.rank, Arrivals(holding))
        for table, row in records:
            if table == "steps":
                self._steps.setdefault(int(row[0]), {})[holding.rank] = row
                reach.last = max(reach.last, int(row[0]))
            elif table == "samples":
                self._looks.setdefault(int(row[0]), {})[holding.rank] = row[1]
            elif table == "meta" and row[0] == "statistics":
                reach.statistics = list(json.loads(row[1]))
            elif table == "sites":
                reach.roles[int(row[0]) :] = [str(row[3])]

    def take(self) -> list[Joined]:
        """What is complete, in order; a step waits for ranks that have not come as far."""
        ready = [s for s in sorted(self._steps) if s in self._ended()]
        looks = [s for s in sorted(self._looks) if s in self._ended(looking=True)]
        found = Joined(self._join_steps(ready), self._join_looks(looks))
        return [found] if found.steps or found.looks else []

    def _ended(self, looking: bool = False) -> range:
        """The steps that every rank has passed; of very old ones, those that need not wait any longer."""
        whole = len(self._reached) >= self.own.ranks
        passed = min((r.last for r in self._reached.values()), default=-1) if whole else -1
        newest = max((r.last for r in self._reached.values()), default=-1)
        return range(0, max(passed - looking, newest - OPEN) + 1)

    def _join_steps(self, steps: list[int]) -> list[dict[str, Any]]:
        if not steps:
            return []
        ranks = sorted(self._reached)
        tables = np.full((len(ranks), len(steps), len(STEP_COLUMNS)), math.nan)
        there = np.zeros(tables.shape[:2], bool)
        for column, step in enumerate(steps):
            for rank, row in self._steps.pop(step).items():
                tables[ranks.index(rank), column] = [math.nan if v is None else float(v) for v in row]
                there[ranks.index(rank), column] = True
        joined = join_columns(tables, there, STEP_COLUMNS, [self._reached[r].holding for r in ranks])
        fixed = {"clipped": math.nan, "exact": 1}
        return [
            {**dict(zip(STEP_COLUMNS, values.tolist(), strict=True)), "step": step, **fixed}
            for step, values in zip(steps, joined, strict=True)
        ]

    def _join_looks(self, steps: list[int]) -> list[tuple[int, Floats]]:
        return [(s, joined) for s in steps if (joined := self._join_look(self._looks.pop(s))) is not None]

    def _join_look(self, cells: dict[int, bytes]) -> Floats | None:
        """The first rank's own sites; its parameters joined with their other shards, if all are there."""
        mine = self._reached.get(self.own.rank)
        if mine is None or self.own.rank not in cells or not mine.roles:
            return None
        parameters = np.array([role == "parameter" for role in mine.roles])
        own = self._read(cells[self.own.rank], mine)
        if own is None:
            return None
        blocks = []
        for rank, raw in cells.items():
            reach = self._reached[rank]
            block = self._read(raw, reach)
            if reach.holding.layout == self.own.layout and block is not None:
                rows = block[[role == "parameter" for role in reach.roles]]
                if len(rows) == parameters.sum():
                    blocks.append(rows)
        joined = own[:, : len(mine.statistics) - len(PARTS)]
        joined[parameters] = join_cells(np.array(blocks), mine.statistics, self.own)
        return joined

    def _read(self, raw: bytes, reach: Arrivals) -> Floats | None:
        values = np.frombuffer(raw, np.float32).astype(np.float64)
        shape = len(reach.roles), len(reach.statistics)
        return values.reshape(shape) if values.size == shape[0] * shape[1] else None
