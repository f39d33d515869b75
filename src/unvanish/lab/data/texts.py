"""Parts of text: labelled texts, pairs of sentences, windows on one long text; ids are in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unvanish.lab.data.part import Batch, Draw, Indices, Part
from unvanish.lab.data.problems import DataError
from unvanish.lab.tokens import BEGIN, END, PAD

Ids = npt.NDArray[np.int32]


class Ragged:
    """Rows of ids of different lengths, concatenated in one array."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.lengths = np.array([len(row) for row in rows], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]) if len(rows) else self.lengths
        self.flat: Ids = np.fromiter((i for row in rows for i in row), np.int32, int(self.lengths.sum()))

    def __len__(self) -> int:
        return len(self.lengths)

    def pad(self, indices: Indices, before: int | None = None, after: int | None = None) -> Tensor:
        """The rows of these indices as (B, T), padded with 0; `before` and `after` are ids added to each."""
        counts = self.lengths[indices]
        lead = before is not None
        width = int(counts.max(initial=0)) + lead + (after is not None)
        table = np.full((len(indices), width), PAD, np.int64)
        inside = np.arange(width) - lead
        mask = (inside >= 0) & (inside < counts[:, None])
        table[mask] = (self.starts[indices][:, None] + inside)[mask]
        table[mask] = self.flat[table[mask]]
        if before is not None:
            table[:, 0] = before
        if after is not None:
            table[np.arange(len(indices)), counts + lead] = after
        return torch.from_numpy(table)


class Texts(Part):
    """Labelled texts: x is ids (B, T), y classes (B,)."""

    in_memory = True

    def __init__(self, rows: Sequence[Sequence[int]], labels: Sequence[int]) -> None:
        self.rows, self.classes = Ragged(rows), np.array(labels, np.int64)

    @property
    def labels(self) -> Indices:
        return self.classes

    @property
    def lengths(self) -> Indices:
        return self.rows.lengths

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        return self.rows.pad(indices), torch.from_numpy(self.classes[indices])


class Pairs(Part):
    """Sentences and their translations: x is (source (B, S), target so far (B, T)), y the next ids (B, T).

    The source ends with an end mark; the target so far begins with a begin mark, the next ids end with an end
    mark.
    """

    in_memory = True

    def __init__(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> None:
        self.sources, self.targets = Ragged(sources), Ragged(targets)

    @property
    def lengths(self) -> Indices:
        return self.sources.lengths + self.targets.lengths

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        source = self.sources.pad(indices, after=END)
        so_far = self.targets.pad(indices, before=BEGIN)
        return (source, so_far), self.targets.pad(indices, after=END)


class Windows(Part):
    """Windows on one long text: x is ids (B, T), y the next ids; an epoch is one pass over the text.

    Moving windows start at another place in each epoch, so that the cuts differ.
    """

    in_memory = True

    def __init__(self, ids: Ids, length: int, moving: bool) -> None:
        self.ids, self.length, self.moving = ids, length, moving
        self.count = (len(ids) - 1) // length - moving
        if self.count < 1:
            least = length * (1 + moving) + 1
            raise DataError(f"{len(ids)} ids of text, but windows of {length} need {least}: lower `length`")

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        shift = int(np.random.default_rng([self.length, draw.epoch]).integers(self.length)) * self.moving
        places = (indices * self.length + shift)[:, None] + np.arange(self.length + 1)
        whole = torch.from_numpy(self.ids[places].astype(np.int64))
        return whole[:, :-1].contiguous(), whole[:, 1:].contiguous()
