"""A small regression for the callbacks of libraries: its numbers, and towers of layers that learn them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture
def draw() -> Callable[..., tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """`draw(broken)`: 256 samples, x (256, 20), y (256, 1); the one of number `broken` is NaN."""

    def make(broken: int | None = None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        numbers = np.random.RandomState(0)
        x = numbers.randn(256, 20).astype("float32")
        y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
        if broken is not None:
            x[broken] = np.nan
        return x, y.astype("float32")

    return make


@pytest.fixture
def tower() -> Callable[..., nn.Sequential]:
    """`tower(kind, depth)`: so many layers of 32 units with this activation, and a head, from one seed."""

    def make(kind: type[nn.Module] = nn.ReLU, depth: int = 3) -> nn.Sequential:
        torch.manual_seed(0)
        layers = [part for k in range(depth) for part in (nn.Linear(32 if k else 20, 32), kind())]
        return nn.Sequential(*layers, nn.Linear(32, 1))

    return make


@pytest.fixture
def hear() -> Iterator[Callable[[str], list[logging.LogRecord]]]:
    """`hear(name)`: the records that reach a logger, from now on."""
    added: list[tuple[logging.Logger, logging.Handler]] = []

    def listen(name: str) -> list[logging.LogRecord]:
        records: list[logging.LogRecord] = []
        handler, logger = logging.Handler(), logging.getLogger(name)
        handler.emit = records.append  # type: ignore[method-assign]
        logger.addHandler(handler)
        added.append((logger, handler))
        return records

    yield listen
    for logger, handler in added:
        logger.removeHandler(handler)
