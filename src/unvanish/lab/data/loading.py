"""Loaders over parts: plain PyTorch DataLoaders that get whole batches from one call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from unvanish.lab.data.content import View
from unvanish.lab.data.order import Order
from unvanish.lab.data.part import Batch, Draw, Part, seed_generator


class Feed(Dataset[Batch]):
    """A part and the last step of its batches, indexed by the samples' numbers in the stream."""

    def __init__(self, part: Part, view: View, seed: int) -> None:
        self.part, self.view, self.seed = part, view, seed

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, number: int) -> Batch:
        return self.__getitems__([number])

    def __getitems__(self, numbers: list[int]) -> Batch:
        """The batch of these numbers, made in one call; PyTorch's loaders use this method if it exists."""
        size = len(self.part)
        indices = np.asarray(numbers, np.int64)
        draw = Draw(int(indices[0]) // size, seed_generator(self.seed, int(indices[0])))
        return self.view(self.part.batch(indices % size, draw), draw.generator)


def identity(batch: Any) -> Any:
    """The batch, unchanged."""
    return batch


def build_loader(
    part: Part, view: View, batch: int, seed: int, shuffle: bool, workers: int = 0, pin: bool | None = None
) -> DataLoader[Batch]:
    """A DataLoader over a part; parts in memory are served by this process, which is the fastest way."""
    workers = 0 if part.in_memory else workers
    return DataLoader(
        Feed(part, view, seed),
        batch_sampler=Order(len(part), batch, seed, shuffle, part.lengths),
        num_workers=workers,
        collate_fn=identity,
        pin_memory=torch.cuda.is_available() if pin is None else pin,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator().manual_seed(0),  # leaves the global generator alone
    )
