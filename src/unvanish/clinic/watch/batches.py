"""Which batches a watched training is given, met at its looks: the same one again, and whose labels.

Notable:
- A few numbers of each sample stand for it. Who is met again, in a small data set, should have the label
  that it had; nothing of another step is kept but hashes.
- Looks come at powers of two, as a loader's turns may, so one batch that is met twice says nothing yet: then
  the next step is looked at, too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unvanish.core.run_facts import BatchFacts
from unvanish.probes.live.batch_rows import SAMPLES
from unvanish.probes.measures import see

KEPT = 20_000  # samples that are remembered
LOOKS = 64  # that are told of


@dataclass
class BatchMemory:
    """Compares the batches of looks; `hear` the labels of one, then `note` its samples."""

    _steps: list[int] = field(default_factory=list)
    _alike: list[bool] = field(default_factory=list)
    _met: list[int] = field(default_factory=list)
    _same: list[int] = field(default_factory=list)
    _lent: list[int] = field(default_factory=list)
    _samples: dict[int, int] = field(default_factory=dict)  # hashes of samples, and of their first labels
    _counts: Counter[int] = field(default_factory=Counter)  # of labels
    _last: list[int] = field(default_factory=list)  # the samples of the last look
    _labels: list[int] = field(default_factory=list)  # of the present one,
    _heard: int = 0  # which has so many

    def hear(self, targets: Tensor | None) -> None:
        """A loss of a look has these labels, shape (samples, ...); those of the first count."""
        if targets is not None and not self._heard:
            self._heard = len(targets)
            self._labels = hash_rows(targets[:SAMPLES].reshape(min(SAMPLES, len(targets)), -1))

    def note(self, step: int, rows: Tensor | None, whole: int) -> None:
        """A look has met these samples, shape (samples, numbers), of a batch of `whole`."""
        labels, heard = self._labels, self._heard
        self._labels, self._heard = [], 0
        if rows is None:
            return
        keys = hash_rows(rows)
        self._steps.append(step)
        self._alike.append(keys == self._last)
        self._last = keys
        met = same = lent = 0
        if heard == whole and len(labels) == len(keys):
            known = [
                (self._samples[k], label) for k, label in zip(keys, labels, strict=True) if k in self._samples
            ]
            met, same = len(known), sum(first == label for first, label in known)
            lent = sum(first != label and label in self._counts for first, label in known)
            if len(self._samples) < KEPT:
                for key, label in zip(keys, labels, strict=True):
                    self._samples.setdefault(key, label)
                self._counts.update(labels)
        for kept, value in ((self._met, met), (self._same, same), (self._lent, lent)):
            kept.append(value)
        del self._steps[:-LOOKS], self._alike[:-LOOKS]
        del self._met[:-LOOKS], self._same[:-LOOKS], self._lent[:-LOOKS]

    @property
    def doubtful(self) -> bool:
        """Whether the last looks had one batch, and a loader that comes round could be the reason."""
        gaps = measure_gaps(self._steps, self._alike)
        return bool(gaps) and math.gcd(*gaps) > 1

    @property
    def facts(self) -> BatchFacts | None:
        """What was met; None without any batch that could be read."""
        if not self._steps:
            return None
        total = sum(self._counts.values())
        chance = sum((n / total) ** 2 for n in self._counts.values()) if total else math.nan
        return {
            "steps": list(self._steps),
            "alike": list(self._alike),
            "met": list(self._met),
            "same": list(self._same),
            "lent": list(self._lent),
            "chance": chance,
        }


def hash_rows(rows: Tensor) -> list[int]:
    """A number for each row."""
    if rows.dtype == torch.bfloat16:
        rows = rows.float()
    return [hash(row.tobytes()) for row in see(rows.detach().cpu().contiguous())]


def measure_gaps(steps: Sequence[int], alike: Sequence[bool]) -> list[int]:
    """Steps between the last looks in a row that had one batch."""
    gaps: list[int] = []
    for i in range(len(steps) - 1, 0, -1):
        if not alike[i]:
            break
        gaps.append(steps[i] - steps[i - 1])
    return gaps
