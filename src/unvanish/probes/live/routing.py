"""Routers under watch: how many tokens of a forward each expert gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probes.choices import read_choice
from unvanish.probes.live.readable import is_readable
from unvanish.probes.routers import AROUND, count_experts

CHOICES = frozenset(("topk", "max", "argmax", "sort"))


@dataclass(frozen=True)
class Load:
    """Tokens of each expert, float64; `shape`: rows, experts, choices for each row."""

    load: Tensor
    shape: tuple[int, int, int]


@torch.no_grad()
def read_load(model: nn.Module, path: str, source: Any, result: Any) -> Load | None:
    """The load that a choice of largest values makes; None if the module around it has no such experts."""
    if not isinstance(source, Tensor) or not is_readable(source):
        return None
    choice = read_choice(source, result, path)
    if choice is None or choice.values not in _list_counts(model, path):
        return None
    flat = choice.indices.flatten()
    load = torch.zeros(choice.values, dtype=torch.float64, device=flat.device)
    load.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.float64))
    return Load(load, (choice.rows, choice.values, flat.numel() // choice.rows))


def _list_counts(model: nn.Module, path: str) -> set[int]:
    """How many experts the module at a path, and those around it, may have."""
    found: set[int] = set()
    parts = path.split(".") if path else []
    for up in range(min(AROUND, len(parts)) + 1):
        module = _find(model, parts[: len(parts) - up])
        found |= set(count_experts(module)) if module is not None else set()
    return found


def _find(model: nn.Module, parts: list[str]) -> nn.Module | None:
    module: Any = model
    for part in parts:
        module = module._modules.get(part)
        if module is None:
            return None
    return module  # type: ignore[no-any-return]
