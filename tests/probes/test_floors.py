"""Functions of one sign before logits: wherever they stand, however they are written, and what is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(96, 16, generator=G), torch.randint(0, 6, (96,), generator=G)
Function = Callable[[Tensor], Tensor]
CUT: dict[str, Function] = {
    "relu": functional.relu,
    "clamp": lambda x: x.clamp(min=0),
    "both": lambda x: x.clamp(0, 1),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "mask": lambda x: x * (x > 0),
    "threshold": lambda x: functional.threshold(x, 0, 0),
    "softplus": functional.softplus,
    "abs": torch.abs,
    "square": lambda x: x**2,
    "exp": torch.exp,
    "gelu": functional.gelu,
    "elu": functional.elu,
}
MEANT: dict[str, Function] = {
    "wide clamp": lambda x: x.clamp(-50, 50),
    "soft cap": lambda x: 30 * torch.tanh(x / 30),
    "leaky": functional.leaky_relu,
    "cube": lambda x: x**3,
    "left out": lambda x: torch.where(torch.arange(6) < 2, torch.full_like(x, -1e9), x),
    "mask of classes": lambda x: x * (torch.arange(6) > 1),
    "maxout": lambda x: torch.maximum(x, x.flip(1)),
    "negative square": lambda x: -(x**2),
}


class Net(nn.Module):
    """Two layers, and a function of their scores."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.layers, self.function = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 6)), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layers(x))


def judge(model: nn.Module, loss: Any, y: Tensor = Y) -> tuple[str, ...]:
    return unvanish.check(model, (X, y), loss, confirm=False, select=["OUT001", "OUT002"]).codes()


def build(function: Function) -> nn.Module:
    torch.manual_seed(0)
    return Net(function)


@pytest.mark.parametrize("name", CUT)
def test_a_function_of_one_sign_is_named_in_the_model_and_in_the_loss(name: str) -> None:
    function = CUT[name]
    assert judge(build(function), nn.CrossEntropyLoss()) == ("OUT001",)
    assert judge(build(lambda x: x), lambda o, y: functional.cross_entropy(function(o), y)) == ("OUT001",)


@pytest.mark.parametrize("name", MEANT)
def test_what_leaves_both_signs_is_left_alone(name: str) -> None:
    y = Y.clamp(min=2)
    assert judge(build(MEANT[name]), nn.CrossEntropyLoss(), y) == ()


@pytest.mark.parametrize("name", ["relu", "gelu", "square"])
def test_a_yes_or_no_is_half_sure_at_least(name: str) -> None:
    found = unvanish.check(
        build(CUT[name]), (X, (X[:, :6] > 0).float()), nn.BCEWithLogitsLoss(), confirm=False
    )
    assert found.codes()[0] == "OUT001"
    assert "half sure" in found.findings[0].cause


def test_a_likelihood_by_hand_is_one_too() -> None:
    def picked(o: Tensor, y: Tensor) -> Tensor:
        return (o.logsumexp(1) - o.gather(1, y[:, None]).squeeze(1)).mean()

    def logged(o: Tensor, y: Tensor) -> Tensor:
        return functional.nll_loss(o.log_softmax(1), y)

    for loss in (picked, logged):
        assert judge(build(functional.relu), loss) == ("OUT001",)
        assert judge(build(lambda x: x), loss) == ()


def test_a_rectifier_is_named_though_it_cuts_off_next_to_nothing() -> None:
    net = build(lambda z: functional.relu(z + 1).log_softmax(1))
    assert judge(net, nn.NLLLoss()) == ("OUT001",)
    assert judge(build(lambda z: (z + 1).log_softmax(1)), nn.NLLLoss()) == ()


def test_a_pooled_map_of_a_rectifier_is_a_head_of_its_own() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    batch = torch.randn(32, 3, 8, 8), Y[:32]
    assert "OUT001" not in unvanish.check(net, batch, nn.CrossEntropyLoss(), confirm=False).codes()


def test_a_dead_function_before_the_loss_is_the_loss_s_fault() -> None:
    net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 6), nn.ReLU())
    nn.init.constant_(net[2].bias, -1.0)
    found = unvanish.check(net, (X, Y), nn.CrossEntropyLoss(), confirm=False)
    assert found.codes()[0] == "OUT001" and "ACT003" not in found.codes()


def test_the_least_of_a_few_logits_is_no_floor() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.scale = nn.Linear(8, 3), nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.body(x)

    for seed in range(12):
        torch.manual_seed(seed)
        batch = torch.randn(12, 8), torch.randint(0, 3, (12,))
        found = unvanish.check(Scaled(), batch, nn.CrossEntropyLoss(), select=["OUT001"], confirm=False)
        assert not found.findings
