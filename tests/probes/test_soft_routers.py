"""Soft routers that cannot tell tokens or experts apart, and those that only begin so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import unvanish

Gate = Callable[["Mixture", Tensor], Tensor]


class Mixture(nn.Module):
    """All of four experts, mixed by a gate."""

    def __init__(self, gate: Gate, alike: bool = False) -> None:
        super().__init__()
        self.into, self.router, self.out = nn.Linear(8, 12), nn.Linear(12, 4), nn.Linear(12, 3)
        self.experts = nn.ModuleList([nn.Linear(12, 12) for _ in range(4)])
        self.gate = gate
        if alike:
            for expert in self.experts:
                expert.load_state_dict(self.experts[0].state_dict())

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.into(x))
        every = torch.stack([torch.tanh(expert(h)) for expert in self.experts], 1)
        out: Tensor = self.out(h + (every * self.gate(self, h)[..., None]).sum(1))
        return out


def judge(model: nn.Module) -> str:
    batch = torch.randn(48, 8), torch.randint(0, 3, (48,))
    found = unvanish.check(model, batch, nn.CrossEntropyLoss(), confirm=False, select=["MOE001"]).findings
    return found[0].cause if found else ""


SICK: dict[str, tuple[Gate, str]] = {
    "constant": (lambda m, h: m.router(torch.ones_like(h)).softmax(-1), "reads a constant"),
    "mean": (lambda m, h: m.router(h.mean(0, keepdim=True)).softmax(-1).expand(len(h), -1), "all 48 samples"),
    "hot": (lambda m, h: (m.router(h) / 1000).softmax(-1), "a factor of 0.001"),
    "hot sigmoid": (lambda m, h: torch.sigmoid(m.router(h) * 1e-4) / 2, "a factor of 0.0001"),
    "faint": (lambda m, h: m.router(h * 1e-5).softmax(-1), "reads numbers of size"),
    "twice": (lambda m, h: m.router(h).softmax(-1).softmax(-1), "normalised twice"),
    "bias": (lambda m, h: (m.router(h) + torch.tensor([30.0, 0, 0, 0])).softmax(-1), "nearly all the weight"),
}
MEANT: dict[str, Gate] = {
    "plain": lambda m, h: m.router(h).softmax(-1),
    "warm": lambda m, h: (m.router(h) / 5).softmax(-1),
    "noisy": lambda m, h: (m.router(h) + torch.randn(len(h), 4)).softmax(-1),
    "gated": lambda m, h: torch.sigmoid(m.router(h)),
}


@pytest.mark.parametrize("name", SICK)
def test_what_keeps_a_router_from_its_work_is_named(name: str) -> None:
    torch.manual_seed(0)
    assert SICK[name][1] in judge(Mixture(SICK[name][0]))


@pytest.mark.parametrize("name", MEANT)
def test_a_router_that_works_is_left_alone(name: str) -> None:
    torch.manual_seed(0)
    assert judge(Mixture(MEANT[name])) == ""


@pytest.mark.parametrize("alike", [False, True])
def test_a_router_that_begins_at_zero_needs_experts_that_differ(alike: bool) -> None:
    torch.manual_seed(0)
    model = Mixture(MEANT["plain"], alike)
    nn.init.zeros_(model.router.weight)
    nn.init.zeros_(model.router.bias)
    assert ("copies of each other" in judge(model)) == alike


class Head(nn.Module):
    """Four blocks, and probabilities of four classes: no router."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.last = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)]), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.relu(block(x))
        return (self.last(x) / 1000).softmax(-1)


class Learned(nn.Module):
    """One weight an expert."""

    def __init__(self) -> None:
        super().__init__()
        self.experts, self.weights = (
            nn.ModuleList([nn.Linear(8, 3) for _ in range(4)]),
            nn.Parameter(torch.zeros(4)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (torch.stack([e(x) for e in self.experts], 1) * self.weights.softmax(0)[:, None]).sum(1)


@pytest.mark.parametrize("model", [Head, Learned])
def test_what_is_no_router_is_left_alone(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    assert judge(model()) == ""
