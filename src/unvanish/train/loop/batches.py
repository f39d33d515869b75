"""The batches of a run, epoch by epoch, also from the middle of an epoch.

Notable: an epoch that is resumed restores the random states of its start, skips the batches that were done,
and restores the states of the interruption; so loader and network continue to draw bit by bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from unvanish.train.loop import randomness
from unvanish.train.loop.record import Record


@dataclass
class Batches:
    """The data, the loaders as this process reads them, and the random states at the epoch's start."""

    data: Any
    train: Any
    val: Any
    start: Mapping[str, Any] = field(default_factory=randomness.capture)
    resumed: Mapping[str, Any] | None = None  # the states `start` and `now` of a run stopped within an epoch

    def __len__(self) -> int:
        return len(self.train)

    def begin_epoch(self, record: Record) -> None:
        """Note the random states; those of an epoch that is resumed are known."""
        if not record.batch:
            self.start = randomness.capture()

    def resume(self, states: Mapping[str, Any], record: Record) -> None:
        """Continue at a record, with the random states that were saved with it."""
        self.start = states["start"]
        if record.batch:
            self.resumed = states
        else:
            randomness.restore(states["now"])

    def windows(self, record: Record, size: Callable[[], int]) -> Iterator[tuple[Any, ...]]:
        """The batches of this epoch that are still to do, grouped by step; `size()` is that of the next."""
        source = self._read(record)
        while window := tuple(itertools.islice(source, size())):
            yield window

    def _read(self, record: Record) -> Iterator[Any]:
        resumed, self.resumed = self.resumed, None
        skips = record.batch
        if resumed is not None:
            randomness.restore(resumed["start"])
        if hasattr(self.data, "start_epoch"):
            self.data.start_epoch(record.epoch, first=skips)
            skips = 0
        source: Iterable[Any] = iter(self.train)
        yield from itertools.islice(source, skips, skips)  # the batches that were done before
        if resumed is not None:
            randomness.restore(resumed["now"])
        yield from source
