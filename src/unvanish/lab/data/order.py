"""The order of samples: the indices of each batch of each epoch.

Notable:
- The order of epoch e is a function of (seed, e) alone, so any epoch can start at any batch.
- An index of epoch e is written e * size + i, its number in the endless stream of samples. The epoch thus
  reaches worker processes, also through samplers wrapped around this one.
- If lengths differ, a batch has samples of similar length: indices are shuffled and cut into pools of fifty
  batches, each sorted by length.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import BatchSampler

from unvanish.lab.data.part import Indices

POOL = 50  # batches sorted by length together


class Order(BatchSampler):
    """The batches of indices of an epoch, shuffled or in order, bucketed by length if lengths are given."""

    def __init__(
        self, size: int, batch: int, seed: int = 0, shuffle: bool = True, lengths: Indices | None = None
    ) -> None:
        self.size, self.batch_size, self.drop_last = size, batch, False
        self.seed, self.shuffle, self.lengths = seed, shuffle, lengths
        self.epoch = self.first = 0

    def start(self, epoch: int, first: int = 0) -> None:
        """Start an epoch at a batch; IndexError if the epoch has fewer batches."""
        if not 0 <= first <= len(self):
            raise IndexError(f"an epoch has {len(self)} batches, it cannot begin at batch {first}")
        self.epoch, self.first = epoch, first

    def batches(self, epoch: int) -> list[Indices]:
        """Every batch of an epoch."""
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(self.size) if self.shuffle else np.arange(self.size)
        if self.lengths is not None:
            pool = POOL * self.batch_size if self.shuffle else max(self.size, 1)
            pools = (order[i : i + pool] for i in range(0, self.size, pool))
            order = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in pools])
        cut = [order[i : i + self.batch_size] for i in range(0, self.size, self.batch_size)]
        if self.shuffle and self.lengths is not None:  # a short last batch stays the last
            full = len(cut) - (len(cut[-1]) < self.batch_size)
            cut = [cut[i] for i in generator.permutation(full)] + cut[full:]
        return cut[: len(self)]

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = self.epoch, self.first
        for indices in self.batches(epoch)[first:]:
            yield (indices + epoch * self.size).tolist()
        if self.shuffle:
            self.epoch, self.first = epoch + 1, 0

    def __len__(self) -> int:
        """The number of batches of an epoch; a shuffled one leaves out a last batch of a single sample."""
        whole, rest = divmod(self.size, self.batch_size)
        lone = self.shuffle and rest == 1 and whole > 0  # batch statistics of one sample do not exist
        return whole + (rest > 0 and not lone)
