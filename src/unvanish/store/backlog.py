"""Records on their way to the disk: a bounded number of bytes and rows, and a count of those left out.

Notable: a fact, a site or a finding replaces the one before it, so these are never left out; rows of steps,
samples and profiles are, the newest first, when the backlog is full.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from unvanish.store.records import Record

WAIT = 3.0  # seconds for which the lock of a backlog is waited for
RECORDS = 4096  # that may wait
BYTES = 64_000_000  # of samples and profiles that may wait
WEIGHED = ("samples", "profiles")  # tables whose last column is bytes
REPLACED = ("meta", "sites", "findings")  # tables whose first column is the key


@dataclass
class Losses:
    """Records that will not be in the file, how many of them are steps, and why the last write failed."""

    dropped: int = 0
    steps: int = 0
    failure: str = ""

    def count(self, table: str) -> None:
        """Count a row of a table as lost."""
        self.dropped += 1
        self.steps += table == "steps"

    def add(self, other: Losses) -> None:
        """Count what others counted, too."""
        self.dropped, self.steps = self.dropped + other.dropped, self.steps + other.steps

    def plus(self, other: Losses) -> Losses:
        """The sum of both."""
        return Losses(self.dropped + other.dropped, self.steps + other.steps, other.failure)

    def describe(self) -> str:
        """The numbers in words; empty if nothing was lost."""
        others = self.dropped - self.steps
        parts = [f"{self.steps:,} step{'s' * (self.steps != 1)}"] if self.steps else []
        parts += [f"{others:,} other record{'s' * (others != 1)}"] if others else []
        return " and ".join(parts)


class BriefLock:
    """A lock that nobody waits for without end: what was interrupted before its release keeps it for ever.

    RuntimeError if it is not free within `WAIT` seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=WAIT):
            raise RuntimeError(f"the backlog of a record was not free for {WAIT:g} s")

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


@dataclass
class Backlog:
    """What waits; `put` is called by the training and never waits for the disk."""

    losses: Losses = field(default_factory=Losses)
    _rows: deque[Record] = field(default_factory=deque, init=False)
    _replaced: dict[tuple[str, Any], Record] = field(default_factory=dict, init=False)
    _fresh: set[tuple[str, Any]] = field(default_factory=set, init=False)  # keys still to be written
    _taken: list[Record] = field(default_factory=list, init=False)
    _bytes: int = field(default=0, init=False)
    _lock: BriefLock = field(default_factory=BriefLock, init=False)

    def __len__(self) -> int:
        return len(self._rows) + len(self._fresh) + len(self._taken)

    def put(self, table: str, row: tuple[Any, ...]) -> None:
        """Add a record, or count it as lost if too much waits."""
        self.put_all(table, (row,))

    def put_all(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add records of one table, or count as lost those for which too much waits."""
        with self._lock:
            for row in rows:
                weight = len(row[-1]) if table in WEIGHED else 0
                if table in REPLACED:
                    self._replaced[table, row[0]] = table, row
                    self._fresh.add((table, row[0]))
                elif len(self._rows) + len(self._taken) >= RECORDS or self._bytes + weight > BYTES:
                    self.losses.count(table)
                else:
                    self._bytes += weight
                    self._rows.append((table, row))

    def take(self) -> list[Record]:
        """All that waits; it is followed by `settle` or `give_back`."""
        with self._lock:
            waiting = [*self._taken, *(self._replaced[key] for key in self._fresh), *self._rows]
            self._taken, self._fresh, self._rows = waiting, set(), deque()
            return self._taken

    def settle(self) -> None:
        """What was taken has been written."""
        with self._lock:
            weight = sum(len(row[-1]) for table, row in self._taken if table in WEIGHED)
            self._taken, self._bytes = [], self._bytes - weight

    def give_back(self) -> None:
        """What was taken could not be written and waits again."""
        with self._lock:
            fresh = {(table, row[0]) for table, row in self._taken if table in REPLACED}
            rows = [record for record in self._taken if record[0] not in REPLACED]
            self._taken, self._fresh, self._rows = [], self._fresh | fresh, deque([*rows, *self._rows])

    def repeat(self) -> None:
        """The file is new: facts, sites and findings are written again."""
        with self._lock:
            self._fresh = set(self._replaced)

    def give_up(self) -> None:
        """Count all that still waits as lost."""
        with self._lock:
            lost = [*self._taken, *self._rows, *(self._replaced[key] for key in self._fresh)]
            self._taken, self._fresh, self._rows, self._bytes = [], set(), deque(), 0
        for table, _ in lost:
            self.losses.count(table)
