"""Records on their way to the disk: a bounded number of bytes and rows, and a count of those left out.

Notable:
- A fact, a site or a finding replaces the one before it, so these are never left out; rows of steps, samples
  and profiles are, the newest first, when the backlog is full.
- The training puts, one thread takes. There is no lock, which an exception at the wrong moment would leave
  locked: what both touch changes in single operations of a dict, a set, a deque. What was taken stays until
  it is settled, so whatever fails on the way is taken again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from unvanish.store.records import Record

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


@dataclass
class Backlog:
    """What waits; `put` is called by the training and never waits for the disk, or for who writes to it."""

    losses: Losses = field(default_factory=Losses)
    _rows: deque[Record] = field(default_factory=deque, init=False)
    _replaced: dict[tuple[str, Any], Record] = field(default_factory=dict, init=False)
    _fresh: set[tuple[str, Any]] = field(default_factory=set, init=False)  # keys still to be written
    _came: int = field(default=0, init=False)  # bytes: counted where they are put,
    _gone: int = field(default=0, init=False)  # and where they are taken off

    def __len__(self) -> int:
        return len(self._rows) + len(self._fresh)

    def put(self, table: str, row: tuple[Any, ...]) -> None:
        """Add a record, or count it as lost if too much waits."""
        self.put_all(table, (row,))

    def put_all(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add records of one table, or count as lost those for which too much waits."""
        for row in rows:
            weight = _weigh(table, row)
            if table in REPLACED:
                self._replaced[table, row[0]] = table, row
                self._fresh.add((table, row[0]))
            elif len(self._rows) >= RECORDS or self._came - self._gone + weight > BYTES:
                self.losses.count(table)
            else:
                self._came += weight
                self._rows.append((table, row))

    def take(self) -> list[Record]:
        """All that waits, and goes on waiting until it is settled."""
        return [*(self._replaced[key] for key in self._fresh.copy()), *self._rows.copy()]

    def settle(self, written: Iterable[Record]) -> None:
        """What was taken has been written."""
        for table, row in written:
            if table in REPLACED:
                key = table, row[0]
                self._fresh.discard(key)
                if self._replaced[key][1] is not row:  # it came meanwhile, before or after the line above
                    self._fresh.add(key)
            else:
                self._gone += _weigh(table, row)
                with suppress(IndexError):  # given up meanwhile
                    self._rows.popleft()

    def repeat(self) -> None:
        """The file is new: facts, sites and findings are written again."""
        self._fresh.update(self._replaced)

    def give_up(self) -> None:
        """Count all that still waits as lost."""
        for table, _ in self.take():
            self.losses.count(table)
        self._rows.clear()
        self._fresh.clear()
        self._gone = self._came


def _weigh(table: str, row: tuple[Any, ...]) -> int:
    """The bytes of a row that count."""
    return len(row[-1]) if table in WEIGHED else 0
