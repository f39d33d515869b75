"""What a proof trains on, and the samples it judges on, which the training does not see.

Notable: of several batches the last one is kept for judging; of one batch a quarter of its samples, drawn by
a fixed seed. A batch that cannot be divided is judged on as it is, and the proof says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unvanish.probes.calls import Targets, tensors_in

BATCHES = 5  # of a loader: four to train on, one to judge on
LEAST = 16  # samples of one batch that is divided
SHARE = 4  # a quarter of them is judged on


@dataclass(frozen=True)
class ProofSamples:
    """Batches to train on, in turn, and the one to judge on; `unseen`: how many samples that one holds which
    the training does not see, 0 if it is the training's own.
    """

    training: tuple[Any, ...]
    judging: Any
    unseen: int


def divide(batches: tuple[Any, ...], seed: int = 0) -> ProofSamples:
    """ProofSamples to train on and samples to judge on."""
    if len(batches) > 1:
        return ProofSamples(batches[:-1], batches[-1], max(1, _count(batches[-1])))
    batch, count = batches[0], _count(batches[0])
    if count < LEAST or not _is_divisible(batch, count):
        return ProofSamples(batches, batch, 0)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    judged = count // SHARE
    return ProofSamples((_pick(batch, order[judged:]),), _pick(batch, order[:judged]), judged)


def _count(batch: Any) -> int:
    """How many samples a batch holds, by its first tensor; 0 if unknown."""
    first = next((t for t in tensors_in(batch) if t.ndim), None)
    return 0 if first is None else len(first)


def _is_divisible(batch: Any, count: int) -> bool:
    """Whether every part of a batch has one entry a sample, in tensors alone."""
    if isinstance(batch, Tensor):
        return bool(batch.ndim) and len(batch) == count and batch.layout is torch.strided
    if isinstance(batch, Mapping):
        return type(batch) is dict and all(_is_divisible(b, count) for b in batch.values())
    return type(batch) in (tuple, list, Targets) and all(_is_divisible(b, count) for b in batch)


def _pick(batch: Any, chosen: Tensor) -> Any:
    """Some samples of a batch."""
    if isinstance(batch, Tensor):
        return batch[chosen.to(batch.device)]
    if isinstance(batch, dict):
        return {name: _pick(b, chosen) for name, b in batch.items()}
    return type(batch)(_pick(b, chosen) for b in batch)
