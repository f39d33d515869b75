"""A part of a data set (train, val, test): its length, and any batch of its samples in one call.

Notable:
- There is no collation of single samples: a part makes whole batches, so small sets are indexed tensors.
- A batch is a pure function of the indices, the epoch and a seed, so any batch can be made without the
  earlier ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Indices = npt.NDArray[np.int64]
Batch = tuple[Any, Any]


@dataclass(frozen=True)
class Draw:
    """The randomness of one batch: its epoch, and a generator that depends only on seed, epoch and batch."""

    epoch: int
    generator: torch.Generator


def seed_generator(seed: int, number: int) -> torch.Generator:
    """A generator for one batch, from the run's seed and the number of its first sample in the stream."""
    state = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class Part(ABC):
    """One split of a data set."""

    in_memory = False  # whether making a batch is cheaper than a transfer from another process

    @property
    def labels(self) -> Indices | None:
        """The class of each sample, if samples have one: fractions and splits keep the shares of classes."""
        return None

    @property
    def lengths(self) -> Indices | None:
        """The length of each sample, if they differ: a batch has samples of similar length."""
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Indices, draw: Draw) -> Batch:
        """The samples of these indices as one batch (x, y)."""


class Tensors(Part):
    """A part that is two tensors, samples first."""

    in_memory = True

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    @property
    def labels(self) -> Indices | None:
        """The targets if they are classes (B,), else None."""
        return self.y.numpy() if self.y.ndim == 1 and not self.y.is_floating_point() else None

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        chosen = torch.from_numpy(indices)
        return self.x.index_select(0, chosen), self.y.index_select(0, chosen)


class Fresh(Part):
    """An endless part: every batch is newly generated, and an epoch is `size` samples."""

    in_memory = True

    def __init__(self, size: int, make: Callable[[int, torch.Generator], Batch]) -> None:
        self.size, self.make = size, make

    def __len__(self) -> int:
        return self.size

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        return self.make(len(indices), draw.generator)


class Subset(Part):
    """Some samples of a part."""

    def __init__(self, part: Part, kept: Indices) -> None:
        self.part, self.kept = part, kept
        self.in_memory = part.in_memory

    @property
    def labels(self) -> Indices | None:
        return None if self.part.labels is None else self.part.labels[self.kept]

    @property
    def lengths(self) -> Indices | None:
        return None if self.part.lengths is None else self.part.lengths[self.kept]

    def __len__(self) -> int:
        return len(self.kept)

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        return self.part.batch(self.kept[indices], draw)


def fraction_of(part: Part, fraction: float, seed: int) -> Part:
    """A share of a part, at least one sample of each class, in the part's order; `seed` chooses which."""
    if fraction >= 1:
        return part
    labels = np.zeros(len(part), np.int64) if part.labels is None else part.labels
    return Subset(part, split(labels, fraction, seed)[0])


def split(labels: Indices, share: float, seed: int = 0) -> tuple[Indices, Indices]:
    """Indices of a share of every class (rounded, at least one) and of the rest, both in ascending order."""
    return _divide(labels, share, seed, 0)


def hold_out(labels: Indices, share: float, seed: int = 0) -> tuple[Indices, Indices]:
    """As `split`, for a share that is not trained on: a class keeps at least one sample for training."""
    return _divide(labels, share, seed, 1)


def _divide(labels: Indices, share: float, seed: int, left: int) -> tuple[Indices, Indices]:
    """A share of every class, at least one sample, of which at least `left` remain, and the rest."""
    generator = np.random.default_rng(seed)
    taken = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(len(members) - left, max(1, round(share * len(members))))
        taken[generator.permutation(members)[:count]] = True
    return np.flatnonzero(taken), np.flatnonzero(~taken)
