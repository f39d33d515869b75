"""Means over neighbours: what they leave of the differences between nodes, and when that is a fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

N = 40
GENERATOR = torch.Generator().manual_seed(0)
EDGES = torch.triu((torch.rand(N, N, generator=GENERATOR) < 0.15).float(), 1)
LINKS = EDGES + EDGES.T + torch.eye(N)
MEANS = LINKS / LINKS.sum(1, keepdim=True)
X, Y = torch.randn(N, 8, generator=GENERATOR), torch.arange(N) % 4
Step = Callable[[Tensor], Tensor]


class Graph(nn.Module):
    """Layers with a mean over neighbours after each; `skip`: beside it; `pooled`: one answer for all."""

    def __init__(self, depth: int, mean: Step, skip: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 24), nn.Linear(24, 4)
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(depth))
        self.mean, self.skip = mean, skip
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        for layer in self.layers:
            new = torch.relu(self.mean(layer(h)))
            h = h + 0.3 * functional.layer_norm(new, (24,)) if self.skip else new
        out: Tensor = self.last(h)
        return out


def multiply(h: Tensor) -> Tensor:
    return MEANS @ h


def multiply_sparse(h: Tensor) -> Tensor:
    return torch.sparse.mm(MEANS.to_sparse(), h)  # type: ignore[no-untyped-call,no-any-return]


def add_up(h: Tensor) -> Tensor:
    to, start = LINKS.nonzero().T
    return torch.zeros_like(h).index_add(0, to, h[start] / LINKS.sum(1)[to, None])


def weigh_messages(h: Tensor) -> Tensor:
    to, start = LINKS.nonzero().T
    degrees = LINKS.sum(1)
    weights = (degrees[to] * degrees[start]).rsqrt()[:, None]
    return torch.zeros_like(h).index_add_(0, to, weights * h[start])


def judge(model: nn.Module, batch: Any = (X, Y)) -> tuple[str, ...]:
    return unvanish.check(model, batch, nn.CrossEntropyLoss(), confirm=False).codes("warning")


@pytest.mark.parametrize("mean", [multiply, multiply_sparse, add_up])
def test_many_means_in_a_row_make_the_nodes_alike(mean: Step) -> None:
    torch.manual_seed(0)
    assert judge(Graph(12, mean))[:1] == ("DEP001",)


@pytest.mark.parametrize(("depth", "skip"), [(2, False), (3, False), (12, True)])
def test_few_means_and_those_with_a_way_around_are_healthy(depth: int, skip: bool) -> None:
    torch.manual_seed(0)
    assert judge(Graph(depth, multiply, skip)) == ()


def test_weights_of_messages_are_no_contraction() -> None:
    torch.manual_seed(0)
    model = Graph(3, weigh_messages)
    for layer in model.layers:
        layer.reset_parameters()  # type: ignore[operator]
    assert judge(model) == ()


def test_small_weights_are_not_the_cause_where_means_are() -> None:
    torch.manual_seed(0)
    model = Graph(14, multiply)
    for layer in model.layers:
        layer.reset_parameters()  # type: ignore[operator]
    assert judge(model) == ("DEP001",)


def test_a_given_matrix_that_turns_is_no_mean() -> None:
    turn = torch.linalg.qr(torch.randn(N, N, generator=GENERATOR))[0]
    torch.manual_seed(0)
    assert "DEP001" not in judge(Graph(6, lambda h: turn @ h))
