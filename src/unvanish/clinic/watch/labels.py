"""What the labels of a watched training are, counted at its looks: how good the best constant answer is.

Notable: each look listens to the backwards of its step, so that nothing is read at the others. A loss that is
more than one cross-entropy says so by its value, which the rule compares.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from torch import Tensor

from unvanish.clinic.watch.batches import BatchMemory
from unvanish.clinic.watch.losses import StepLosses
from unvanish.clinic.watch.watched import Watched
from unvanish.core.run_facts import LabelFacts
from unvanish.probes.live.backwards import BackwardListener
from unvanish.probes.live.examination import find_root
from unvanish.probes.live.guard import WatchEntry, WatchGuard
from unvanish.probes.live.labels import LabelReading, measure_entropy, read_labels, read_targets

MOST = 256  # losses that are read


class LabelCount:
    """Counts the labels of the losses at looks; `open` before a step that is looked at, `close` after it."""

    def __init__(self, watched: Watched, guard: WatchGuard) -> None:
        self.seconds = 0.0  # our own, of the present look
        self.readings = 0  # losses of this training that were read
        self.step = 0  # the one that is looked at
        self.batches = BatchMemory()
        self._guard = guard
        self._losses = StepLosses(watched, guard)  # which backwards are this training's
        self._listener = BackwardListener(WatchEntry(guard, self._hear), WatchEntry(guard, self._end))
        guard.hold(self._listener)
        self._read: LabelReading | None = None  # of the backward that runs
        self._sums: Tensor | None = None
        self._first: Tensor | None = None  # the sums of the first loss
        self._rows = self._same = self._varied = 0
        self._yes_no = False
        self._targets: Tensor | None = None  # of the backward that runs
        self._seen: list[tuple[int, float]] = []  # step and value of each
        self._barred = False  # some loss was none that can be read

    def open(self, step: int) -> None:
        """A step begins that is looked at."""
        self.step, self.seconds = step, 0.0
        self._listener.listen()

    def close(self) -> None:
        """It has ended; harmless when repeated."""
        self._listener.remove()
        self._losses.forget()

    def _hear(self, roots: Any, chosen: bool) -> None:
        began = perf_counter()
        self._losses.begin(roots, 1.0)
        root = find_root(roots) if self._losses.open else None
        read, counts = self._guard.read, root is not None and not self._barred and self.readings < MOST
        self._read = read("the labels of the loss", read_labels, root) if counts else None
        self._targets = None if root is None else read("the targets of the loss", read_targets, root)
        self.seconds += perf_counter() - began

    def _end(self, failed: bool) -> None:
        began = perf_counter()
        targets, self._targets = self._targets, None
        if self._losses.end(failed):
            self.batches.hear(targets)
            if not self._barred and self.readings < MOST:
                self._count()
        self.seconds += perf_counter() - began

    def _count(self) -> None:
        """The loss that was read is one of this training's."""
        read, self._read = self._read, None
        fits = read is not None and (self._sums is None or self._fits(read, self._sums))
        if read is None or not fits:
            self._barred = True
            return
        self._first = read.sums if self._first is None else self._first
        self._same += bool((read.sums == self._first).all())
        self._sums = read.sums if self._sums is None else self._sums + read.sums
        self._rows, self._yes_no = self._rows + read.rows, read.yes_no
        self._varied += read.varied
        self.readings += 1
        self._seen.append((self.step, read.value))

    def _fits(self, read: LabelReading, sums: Tensor) -> bool:
        return read.yes_no == self._yes_no and read.sums.shape == sums.shape

    @property
    def facts(self) -> LabelFacts | None:
        """What was counted; None if nothing was, or not all losses are such."""
        if self._barred or self._sums is None:
            return None
        guess, off = measure_entropy(self._sums, self._rows, self._yes_no)
        return {
            "guess": guess,
            "off": off,
            "read": self._seen,
            "varied": self._varied / self.readings,
            "same": self._same == self.readings and self.readings > 1,
            "answers": 2 if self._yes_no else len(self._sums),
        }
