"""Which values an operation chooses along the last axis: the largest ones, as a router of experts does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

FEWEST, MOST = 2, 1024  # values to choose from


@dataclass(frozen=True)
class Choice:
    """The indices that were chosen of so many values, for so many rows; `scores`: the values, detached."""

    caller: Any  # the call of a module, or its path
    values: int
    rows: int
    indices: Tensor
    scores: Tensor


def read_choice(source: Any, result: Any, caller: Any) -> Choice | None:
    """The choice that an operation made along the last axis; None if it made none."""
    indices = result if isinstance(result, Tensor) else result[1] if len(result) > 1 else None
    if not (isinstance(source, Tensor) and isinstance(indices, Tensor)) or source.ndim < 2:
        return None
    if indices.is_floating_point() or not FEWEST <= source.shape[-1] <= MOST:
        return None
    rows = source.numel() // source.shape[-1]
    if indices.shape == source.shape:  # a sort: the largest comes first
        indices = source.detach().argmax(-1, keepdim=True)
    if (
        not rows
        or indices.numel() % rows
        or not indices.numel()
        or indices.numel() // rows >= source.shape[-1]
    ):
        return None
    return Choice(caller, source.shape[-1], rows, indices.detach(), source.detach())
