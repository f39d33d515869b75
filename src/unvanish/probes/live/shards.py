"""What one process holds of a model that lies on several: its own numbers, and how much they count.

Notable:
- Only local shards are read, so nothing here makes the ranks talk to each other.
- The squares of all ranks add up to those of the whole if each counts by one over the ranks that hold the
  same numbers; plain parameters beside shards are replicas.
- A gradient of partial sums (`Partial`) cannot be read without the other ranks: it is left out, by name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def is_shard(x: Any) -> bool:
    """Whether a tensor is a DTensor: this process holds a part of it."""
    return type(x).__name__ == "DTensor"


def local(x: Tensor) -> Tensor:
    """The part of a tensor that this process holds; complex numbers as pairs of real ones."""
    if is_shard(x):
        x = x.to_local()  # type: ignore[attr-defined]
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def is_partial(x: Any) -> bool:
    """Whether a DTensor's numbers are summands of other ranks' too."""
    return is_shard(x) and any(place.is_partial() for place in x.placements)


def count_shards(parameters: Iterable[Any]) -> int:
    """How many ranks hold these together: the largest mesh; 1 if each holds all of them."""
    return max((int(p.device_mesh.size()) for p in parameters if is_shard(p)), default=1)


def count_copies(p: Any, ranks: int) -> float:
    """How many of `ranks` ranks hold the same numbers as this one, of a model that is sharded."""
    if not is_shard(p):
        return float(ranks)
    mesh = p.device_mesh
    copies = math.prod(mesh.size(d) for d, place in enumerate(p.placements) if place.is_replicate())
    return float(copies * ranks / mesh.size())


def count_processes() -> int:
    """How many processes train together; 1 without torch.distributed."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def digest_layout(names: Iterable[str], parameters: Iterable[Any]) -> str:
    """A digest of names and whole shapes, equal on ranks that hold copies or shards of the same."""
    lines = [f"{name}{tuple(p.shape)}" for name, p in zip(names, parameters, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
