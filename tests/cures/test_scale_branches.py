"""What branches add is scaled behind their last layer, where that is a module; else its weights are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish
from unvanish.core.diagnosis import Remedy
from unvanish.cures import cures

BLOCKS = 16
SCALE = BLOCKS**-0.5


class Modules(nn.Module):
    """x + two(relu(one(x)))."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.kaiming_normal_(self.one.weight)
        nn.init.kaiming_normal_(self.two.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(torch.relu(self.one(x)))


class Functions(nn.Module):
    """The same with weights of its own."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.weight, self.out = (nn.Parameter((2 / width) ** 0.5 * torch.randn(width, width)) for _ in "ab")

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.linear(torch.relu(functional.linear(x, self.out)), self.weight)


class Sequence(nn.Module):
    """The sum is made by whoever calls the blocks."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        nn.init.kaiming_normal_(self.body[0].weight)
        nn.init.kaiming_normal_(self.body[2].weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class Attending(nn.Module):
    """Attention, whose output weight is no module that is called."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = x[:, None]
        return x + self.attend(h, h, h, need_weights=False)[0][:, 0]


def build(block: type[nn.Module]) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    net = nn.Sequential(*(block() for _ in range(BLOCKS)), nn.Linear(24, 3))
    return net, (torch.randn(16, 24), torch.randint(0, 3, (16,)))


def plan(net: nn.Module, batch: Any) -> Remedy:
    trace = unvanish.check(net, batch, nn.CrossEntropyLoss(), confirm=False, theory=False).trace
    (planned,) = cures()["scale-branches"].plan(trace, Remedy("scale-branches", (), "", "retrain"))
    return planned


@pytest.mark.parametrize(
    ("block", "modules", "weights"),
    [
        (Modules, ("0.two", "1.two"), []),
        (Sequence, ("0.body.2", "1.body.2"), []),
        (Functions, (), ["0.weight", "1.weight"]),
        (Attending, (), ["0.attend.out_proj.weight", "0.attend.out_proj.bias"]),
    ],
)
def test_the_factor_stands_behind_a_module_that_ends_the_branch(
    block: type[nn.Module], modules: tuple[str, ...], weights: list[str]
) -> None:
    planned = plan(*build(block))
    assert planned.parameters["scale"] == pytest.approx(SCALE)
    assert planned.targets[:2] == modules and list(planned.parameters.get("weights", []))[:2] == weights


@pytest.mark.parametrize("block", [Modules, Sequence, Functions])
def test_each_branch_adds_a_share_of_what_it_added(block: type[nn.Module]) -> None:
    net, batch = build(block)
    planned, wanted = plan(net, batch), batch[0]
    for layer in list(net)[:-1]:
        wanted = wanted + SCALE * (layer(wanted) - wanted)
    wanted, by_hand = net[-1](wanted), copy.deepcopy(net)
    unvanish.apply(net, [planned], batch=batch)
    assert torch.allclose(net(batch[0]), wanted, rtol=1e-3, atol=1e-4)
    exec("\n".join(cures()["scale-branches"].code(planned)), {"model": by_hand})
    assert torch.allclose(by_hand(batch[0]), wanted, rtol=1e-2, atol=1e-3)


def test_it_trains_under_the_rate_of_sgd_that_the_factor_trains_at() -> None:
    net, batch = build(Modules)
    unvanish.apply(net, [plan(net, batch)], batch=batch)
    optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3
