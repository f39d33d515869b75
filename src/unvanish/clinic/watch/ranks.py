"""Several processes that train together: what each of them saw is joined in one reduction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unvanish.probes.intact import WRAPPERS


def is_replicated(model: nn.Module) -> bool:
    """Whether other processes, or wrappers, hold copies of the model."""
    return isinstance(model, WRAPPERS) or count_ranks() > 1


def count_ranks() -> int:
    """How many processes train together; 1 without torch.distributed."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def sum_over_ranks(
    seen: Tensor | None, squares: Tensor, changes: Tensor | None, sharded: bool, ranks: int
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """One reduction: the mean of what the eyes saw, and the sums of what is sharded."""
    parts = [p for p in (seen, squares, changes) if p is not None]
    flat = torch.cat(
        [
            torch.nan_to_num(p.to(squares.device), nan=0.0, posinf=1e300, neginf=-1e300).flatten()
            for p in parts
        ]
    )
    torch.distributed.all_reduce(flat)
    ends = torch.tensor([p.numel() for p in parts]).cumsum(0).tolist()
    pieces = [flat[end - p.numel() : end].reshape(p.shape) for end, p in zip(ends, parts, strict=True)]
    if seen is not None:
        missing = seen.isnan().to(squares.device)
        pieces[0] = torch.where(missing, math.nan, pieces[0] / ranks)
    weight = 1.0 if sharded else 1.0 / ranks
    rest = [p * weight for p in pieces[1 if seen is not None else 0 :]]
    return (pieces[0] if seen is not None else None), rest[0], (rest[1] if changes is not None else None)


def join_norms(values: Tensor, shards: list[bool]) -> Tensor:
    """Norms of shards, joined over the ranks; the other norms unchanged."""
    mask = torch.tensor(shards, device=values.device)
    squares = torch.where(mask, values.square(), 0.0)
    torch.distributed.all_reduce(squares)
    return torch.where(mask, squares.sqrt(), values)


def leads(count: int) -> bool:
    """Whether this process writes."""
    return count == 1 or torch.distributed.get_rank() == 0


def agree_on(interval: int, count: int, device: torch.device) -> int:
    """The same interval on every rank, the longest of them."""
    if count == 1:
        return interval
    shared = torch.tensor([interval], device=device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return int(shared)
