"""Statistics of small activations, copied and then computed together: one reduction for twenty layers.

Notable: the copy is made at the call, since an activation may be written over later. Copies of one shape are
read as soon as they hold PILE numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unvanish.core.omissions import Omissions
from unvanish.probes.measures import (
    FEATURES,
    SAMPLES,
    Numbers,
    has_tokens,
    likeness,
    samples,
    size_stats,
    square_rows,
    token_cosines,
)

LARGE = 1 << 16  # elements of an activation that is read by itself
PILE = 1 << 20
Waiting = tuple[dict[str, float], NDArray[Any]]  # the statistics to be written, and the copy
Key = tuple[torch.Size, int]  # of the copy; tokens in a sequence, or 0


@dataclass
class Together:
    """Small activations that wait to be read, by (samples, features); `batch`: the size of the batch."""

    batch: int | None
    omissions: Omissions = field(default_factory=Omissions)
    waiting: dict[Key, list[Waiting]] = field(default_factory=dict)

    def take(self, x: Tensor, stats: dict[str, float], tokens: bool = False) -> bool:
        """Keep a copy, whose statistics will be written into `stats`; False if it is not small enough.

        `tokens`: it holds a sequence of tokens for each sample, if the samples come first.
        """
        if x.numel() > LARGE or not x.is_cpu or not x.is_floating_point() or x.layout is not torch.strided:
            return False
        rows = samples(x, self.batch)
        if rows is None or rows.shape[0] > SAMPLES or rows.shape[1] > FEATURES:
            return False
        tokens = tokens and has_tokens(x)
        if tokens and x.shape[0] != self.batch:
            return False
        copied = _copy(rows)
        key = rows.shape, x.shape[1] if tokens else 0
        pile = self.waiting.setdefault(key, [])
        pile.append((stats, copied))
        if len(pile) * x.numel() > PILE:
            self._settle(self.waiting.pop(key), key[1])
        return True

    def settle(self) -> None:
        """Read all that waits."""
        while self.waiting:
            (_, length), pile = self.waiting.popitem()
            self._settle(pile, length)

    def _settle(self, pile: list[Waiting], length: int) -> None:
        try:
            _read(pile, length)
        except Exception as error:
            self.omissions.note("the statistics of small activations", "", error)


def _copy(rows: Tensor) -> NDArray[Any]:
    if rows.dtype is torch.float32 or rows.dtype is torch.float64:
        return rows.clone(memory_format=torch.contiguous_format).numpy()
    return rows.to(torch.float64, copy=True).numpy()


def _read(pile: list[Waiting], length: int) -> None:
    """Write the statistics of activations of one shape; `length`: of their sequences of tokens, or 0."""
    x: Numbers = np.concatenate([rows for _, rows in pile], dtype=np.float64)
    x = x.reshape(len(pile), *pile[0][1].shape)
    squares = square_rows(x)
    norms = np.sqrt(squares.sum(1))
    whole = np.isfinite(norms) & (norms > 0)
    if not whole.all():
        x[~whole], squares[~whole] = 0.0, 1.0
    flat = x.reshape(len(x), -1)
    largest = np.maximum(flat.max(1), -flat.min(1))
    alike = likeness(x, squares)
    if length:
        alike["token_cosine"] = token_cosines(x.reshape(*x.shape[:2], length, -1))
    for i, ((stats, rows), norm, most) in enumerate(zip(pile, norms.tolist(), largest.tolist(), strict=True)):
        if not math.isfinite(norm):
            bad = float((~np.isfinite(rows)).mean())
            stats.update(size_stats(norm, rows.size, bad))
            continue
        stats.update(size_stats(norm, rows.size), forward_max=most)
        if norm > 0:
            stats.update({name: values[i] for name, values in alike.items()})
