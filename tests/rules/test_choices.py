"""A softmax that picks on the way of the gradient: how much of its loss is that of a selection."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import unvanish

WIDTH, ROWS = 32, 64


class Memory(nn.Module):
    """Reads a table once: softmax(beta x M^T) M."""

    def __init__(self, beta: float = 1.0, reads: int = 1) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.tables = nn.ParameterList([nn.Parameter(torch.randn(ROWS, WIDTH)) for _ in range(reads)])
        self.last, self.beta = nn.Linear(WIDTH, 4), beta

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for table in self.tables:
            x = torch.softmax(self.beta * (x @ table.T), -1) @ table
        found: Tensor = self.last(x)
        return found


class Chain(nn.Module):
    """Softmaxes as activations between layers that are plain products."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(WIDTH, WIDTH)) for _ in range(layers)])
        self.last = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = torch.softmax(x @ weight, -1)
        found: Tensor = self.last(x)
        return found


class Mixed(nn.Module):
    """Experts that a gate weighs, behind a tower of sigmoids."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        tower = [part for _ in range(layers) for part in (nn.Linear(WIDTH, WIDTH), nn.Sigmoid())]
        self.tower, self.gate = nn.Sequential(*tower), nn.Linear(WIDTH, 4)
        self.experts, self.last = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tower(x)
        said = self.experts(x).reshape(len(x), 4, -1)
        found: Tensor = self.last(torch.einsum("be,bed->bd", torch.softmax(self.gate(x), -1), said))
        return found


@pytest.mark.parametrize(
    ("build", "codes"),
    [
        pytest.param(Memory, (), id="one read"),
        pytest.param(lambda: Memory(reads=2), (), id="two reads"),
        pytest.param(lambda: Mixed(1), (), id="a gate"),
        pytest.param(lambda: Memory(beta=0.005), ("ACT002",), id="a temperature that averages all"),
        pytest.param(lambda: Chain(6), ("ACT002",), id="softmax as activation"),
        pytest.param(lambda: Mixed(10), ("ACT002",), id="a tower of sigmoids below a gate"),
    ],
)
def test_a_pick_is_a_selection_as_long_as_it_loses_no_more(
    build: Callable[[], nn.Module], codes: tuple[str, ...]
) -> None:
    torch.manual_seed(1)
    batch = torch.randn(64, WIDTH), torch.randint(0, 4, (64,))
    found = unvanish.check(build(), batch, nn.CrossEntropyLoss(), confirm=False).codes()
    assert set(codes) <= set(found) and bool(codes) == bool(found)
