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
from unvanish.probes.measures import FEATURES, SAMPLES, Numbers, likeness, samples, size_stats

LARGE = 1 << 16  # elements of an activation that is read by itself
PILE = 1 << 20


@dataclass
class Together:
    """Small activations that wait to be read, by (samples, features); `batch`: the size of the batch."""

    batch: int | None
    omissions: Omissions = field(default_factory=Omissions)
    waiting: dict[torch.Size, list[tuple[dict[str, float], NDArray[Any]]]] = field(default_factory=dict)

    def take(self, x: Tensor, stats: dict[str, float]) -> bool:
        """Keep a copy, whose statistics will be written into `stats`; False if it is not small enough."""
        if x.numel() > LARGE or not x.is_cpu or not x.is_floating_point() or x.layout is not torch.strided:
            return False
        rows = samples(x, self.batch)
        if rows is None or rows.shape[0] > SAMPLES or rows.shape[1] > FEATURES:
            return False
        copied = _copy(rows)
        pile = self.waiting.setdefault(rows.shape, [])
        pile.append((stats, copied))
        if len(pile) * x.numel() > PILE:
            self._settle(self.waiting.pop(rows.shape))
        return True

    def settle(self) -> None:
        """Read all that waits."""
        while self.waiting:
            self._settle(self.waiting.popitem()[1])

    def _settle(self, pile: list[tuple[dict[str, float], NDArray[Any]]]) -> None:
        try:
            _read(pile)
        except Exception as error:
            self.omissions.note("the statistics of small activations", "", error)


def _copy(rows: Tensor) -> NDArray[Any]:
    if rows.dtype is torch.float32 or rows.dtype is torch.float64:
        return rows.clone(memory_format=torch.contiguous_format).numpy()
    return rows.to(torch.float64, copy=True).numpy()


def _read(pile: list[tuple[dict[str, float], NDArray[Any]]]) -> None:
    x: Numbers = np.concatenate([rows for _, rows in pile], dtype=np.float64)
    x = x.reshape(len(pile), *pile[0][1].shape)
    squares = np.einsum("nrf,nrf->nr", x, x)
    norms = np.sqrt(squares.sum(1))
    whole = np.isfinite(norms) & (norms > 0)
    if not whole.all():
        x[~whole], squares[~whole] = 0.0, 1.0
    flat = x.reshape(len(x), -1)
    largest = np.maximum(flat.max(1), -flat.min(1))
    alike = likeness(x, squares)
    for i, ((stats, rows), norm, most) in enumerate(zip(pile, norms.tolist(), largest.tolist(), strict=True)):
        if not math.isfinite(norm):
            bad = float((~np.isfinite(rows)).mean())
            stats.update(size_stats(norm, rows.size, bad))
            continue
        stats.update(size_stats(norm, rows.size), forward_max=most)
        if norm > 0:
            stats.update({name: values[i] for name, values in alike.items()})
