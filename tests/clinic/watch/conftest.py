"""A small network, a loop as people write it, and what hangs on a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.watch import Watch


class Net(nn.Module):
    """Convolution, BatchNorm, in-place ReLU, a functional one with a skip, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.body = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.body:
            x = nn.functional.relu(x + layer(x))
        return self.head(self.drop(x.mean((2, 3))))


def _net() -> Net:
    torch.manual_seed(0)
    return Net()


def _data(n: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 8, 8, generator=generator), torch.randint(0, 4, (n,), generator=generator)


def _fit(
    model: nn.Module,
    steps: int,
    *,
    look: dict[str, Any] | None = None,
    amp: bool = False,
    parts: int = 1,
    clip: float | None = None,
    scaler: Any = None,
    optimizer: Any = None,
) -> tuple[list[float], Watch | None]:
    """A loop as people write it; its losses."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), 1e-2)
    x, y = _data()
    torch.manual_seed(3)
    losses = []
    watch = None if look is None else unvanish.watch(model, optimizer, scaler=scaler, **look)
    for _ in range(steps):
        total = 0.0
        for px, py in zip(x.chunk(parts), y.chunk(parts), strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                loss = nn.functional.cross_entropy(model(px), py) / parts
            (scaler.scale(loss) if scaler is not None else loss).backward()
            total += loss.item()
        if scaler is not None:
            scaler.unscale_(optimizer)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        if scaler is not None:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad()
        if watch is not None:
            watch.step(total)
        losses.append(total)
    if watch is not None:
        watch.close()
    return losses, watch


def _hooks(model: nn.Module) -> int:
    own = sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()
    )
    shared = torch.nn.modules.module
    tensors = sum(len(p._backward_hooks or ()) for p in model.parameters())
    return own + len(shared._global_forward_hooks) + len(shared._global_forward_pre_hooks) + tensors


def _poisoned(model: nn.Module, optimizer: Any, watch: Any, at: int = 6, steps: int = 10) -> None:
    x, y = _data()
    loss_function = watch.watched.loss or nn.CrossEntropyLoss()
    for k in range(steps):
        optimizer.zero_grad()
        inputs = x.clone()
        if k == at:
            inputs[0, 0, 0, 0] = math.nan
        loss = loss_function(model(inputs), y)
        loss.backward()
        optimizer.step()
        watch.step(loss)


@pytest.fixture
def net() -> Callable[..., Any]:
    return _net


@pytest.fixture
def data() -> Callable[..., Any]:
    return _data


@pytest.fixture
def fit() -> Callable[..., Any]:
    return _fit


@pytest.fixture
def hooks() -> Callable[..., Any]:
    return _hooks


@pytest.fixture
def poisoned() -> Callable[..., Any]:
    return _poisoned
