"""Random numbers for probes: drawn on the CPU, the same for every device, and for any default device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def new_generator(seed: int) -> torch.Generator:
    """A generator of its own; the global one is not touched."""
    return torch.Generator(device="cpu").manual_seed(seed)


def draw_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal numbers, float64, on the CPU."""
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")


def draw_cotangents(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Random unit cotangents for every sequence, (count, B, size), for a state (B, size)."""
    return nn.functional.normalize(draw_normal((count, *like.shape), generator), dim=-1).to(like.device)
