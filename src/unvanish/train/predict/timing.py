"""Inputs in batches, and how long their stages take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def in_batches(source: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` entries; no more than one list is held."""
    entries = iter(source)
    while group := list(itertools.islice(entries, size)):
        yield group


class Timer:
    """Milliseconds of the stages of a batch, one after the other."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.last = time.perf_counter()

    def begin(self) -> None:
        """Start the first stage of the next batch."""
        self.spent, self.last = {}, time.perf_counter()

    def mark(self, stage: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.spent[stage], self.last = 1e3 * (now - self.last), now

    def share(self, samples: int) -> dict[str, float]:
        """The milliseconds of each of the batch's samples."""
        return {stage: spent / samples for stage, spent in self.spent.items()}
