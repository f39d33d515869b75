"""Small networks and loaders of plain PyTorch, and a way to train them quietly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unvanish.train import Loaders, Model, Results


class Wobbly(nn.Module):
    """A network with dropout and BatchNorm, so that every random state counts."""

    def __init__(self, width: int = 16, dropout: float = 0.2) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def _network(seed: int = 0, **settings: Any) -> nn.Module:
    """A `Wobbly` with the weights of a seed."""
    torch.manual_seed(seed)
    return Wobbly(**settings)


def _loaders(size: int = 96, batch: int = 16, shuffle: bool = True, val: bool = True) -> Loaders:
    """A learnable problem: four classes of eight numbers."""
    made = torch.Generator().manual_seed(1)
    centres = 2 * torch.randn(4, 8, generator=made)

    def part(count: int) -> TensorDataset:
        y = torch.randint(0, 4, (count,), generator=made)
        return TensorDataset(centres[y] + torch.randn(count, 8, generator=made), y)

    train = DataLoader(part(size), batch, shuffle=shuffle)
    return Loaders(train, DataLoader(part(32), 16) if val else None, facts={"classes": 4}, names=list("abcd"))


Train = Callable[..., Results]


@pytest.fixture
def trained(tmp_path: Path) -> Train:
    """Train a module on loaders into the test's folder, without output; returns the results."""

    def run(model: Model | nn.Module, data: Any = None, **arguments: Any) -> Results:
        settings = {"project": str(tmp_path), "name": "run", "verbose": False, "plots": False, "watch": False}
        owner = model if isinstance(model, Model) else Model(model)
        return owner.train(_loaders() if data is None else data, **{**settings, **arguments})

    return run


@pytest.fixture
def network() -> Callable[..., nn.Module]:
    """A function of a seed: a `Wobbly` with its weights."""
    return _network


@pytest.fixture
def loaders() -> Callable[..., Loaders]:
    """A function that makes the loaders of a small problem."""
    return _loaders
