"""The reading of the depth axis on real nets whose fault is known by construction."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import unvanish
from unvanish.core import depth
from unvanish.core.accounts import ACCOUNTS
from unvanish.probes import record


def plain(
    gain: float, activation: Callable[[], nn.Module], layers: int = 30, width: int = 96, bias: float = 0.0
) -> nn.Sequential:
    """A plain net with weights N(0, gain^2 / n)."""
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for _ in range(layers):
        layer = nn.Linear(width, width)
        nn.init.normal_(layer.weight, std=gain * width**-0.5)
        nn.init.normal_(layer.bias, std=bias)
        parts += [layer, activation()]
    return nn.Sequential(*parts, nn.Linear(width, 4))


def now_and_then(gain: float, every: int, between: Callable[[], nn.Module] | None = None) -> nn.Sequential:
    """A sigmoid after every so many layers; after the others nothing, or another activation."""
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for k in range(28):
        layer = nn.Linear(96, 96)
        nn.init.normal_(layer.weight, std=gain * 96**-0.5)
        nn.init.zeros_(layer.bias)
        last = k % every == every - 1
        parts += [layer, *([nn.Sigmoid()] if last else [between()] if between else [])]
    return nn.Sequential(*parts, nn.Linear(96, 4))


class Stream(nn.Module):
    """x + f(x), block after block, without a normalisation."""

    def __init__(self, strength: float, blocks: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(96, 96) for _ in range(blocks))
        for block in self.blocks:
            nn.init.normal_(block.weight, std=strength * 2**0.5 * 96**-0.5)
        self.head = nn.Linear(96, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(torch.relu(x))
        return self.head(x)


def batch_norm() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [
        part for _ in range(48) for part in (nn.Linear(96, 96, bias=False), nn.BatchNorm1d(96), nn.ReLU())
    ]
    return nn.Sequential(*parts, nn.Linear(96, 4))


def pinched(factor: float) -> nn.Sequential:
    net = plain(2**0.5, nn.ReLU, layers=10)
    net[8].weight.data.mul_(factor)
    return net


def read(model: nn.Module) -> depth.Depth:
    torch.manual_seed(1)
    found = depth.read(record(model, torch.randn(32, 96)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (lambda: plain(2**0.5, nn.ReLU), ""),
        (lambda: plain(3**-0.5, nn.ReLU), "INI001"),
        (lambda: plain(1.0, nn.ReLU), "INI001"),
        (lambda: plain(3**-0.5, nn.Tanh), "INI001"),
        (lambda: plain(2.0, nn.ReLU), "INI002"),
        (lambda: plain(1.0, nn.Sigmoid), "ACT002"),
        (lambda: plain(3**-0.5, nn.Sigmoid), "ACT002"),
        (lambda: now_and_then(1.0, 2), "ACT002"),
        (lambda: now_and_then(1.0, 4), "ACT002"),
        (lambda: now_and_then(1.0, 2, nn.Tanh), "ACT002"),
        (lambda: now_and_then(2**0.5, 2, nn.ReLU), "ACT002"),
        (lambda: now_and_then(3**-0.5, 7), "INI001"),
        (lambda: pinched(1e-3), "INI001"),
        (lambda: pinched(1e4), "INI002"),
        (lambda: Stream(1.2), "DEP002"),
        (lambda: Stream(0.2), ""),
        (batch_norm, "NRM001"),
    ],
)
def test_the_cause_is_the_one_built_in(model: Callable[[], nn.Module], cause: str) -> None:
    assert read(model()).cause == cause


def test_activations_that_contract_now_and_then_are_named_alone_and_confirmed() -> None:
    torch.manual_seed(1)
    batch = torch.randn(32, 96), torch.randint(0, 4, (32,))
    found = unvanish.check(now_and_then(2**0.5, 2, nn.ReLU), batch, nn.CrossEntropyLoss()).findings[0]
    assert found.code == "ACT002" and found.confirmed
    assert "sigmoid keeps 0.2" in found.cause and "at each of 13 places" in found.cause


def test_without_weights_on_the_axis_none_are_blamed() -> None:
    """A forward that differentiates: the layers lie between two cuts."""

    class Physics(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(1, 64), nn.Linear(64, 64), nn.Linear(64, 1)])

        def forward(self, x: Tensor) -> Tensor:
            x = x.requires_grad_()
            h = torch.sin(3 * self.layers[0](x))
            u = self.layers[2](torch.sin(3 * self.layers[1](h)))
            (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
            return second + u  # type: ignore[no-any-return]

    torch.manual_seed(0)
    found = unvanish.check(Physics(), (6 * torch.rand(64, 1), torch.zeros(64, 1)), nn.MSELoss())
    assert not found.codes()


def test_saturation_is_told_from_contraction() -> None:
    reading = read(plain(1.0, nn.Tanh, bias=20.0))
    assert reading.cause == "ACT001" and reading.saturated < -10


@pytest.mark.parametrize(("gain", "a_layer"), [(1.0, math.log(0.5) / 2), (2.0, math.log(2.0) / 2)])
def test_the_ratio_is_the_theoretical_one(gain: float, a_layer: float) -> None:
    """ReLU: chi = gain^2 / 2 a layer (He 2015); 3 % of width-96 noise a layer."""
    reading = read(plain(gain, nn.ReLU, layers=40))
    assert reading.log_ratio / reading.steps == pytest.approx(a_layer, abs=0.05)
    assert reading.weights / reading.steps == pytest.approx(math.log(gain), abs=0.02)


def test_the_accounts_add_up() -> None:
    reading = read(plain(1.0, nn.Sigmoid))
    accounts = [getattr(reading, name) for name in ACCOUNTS]
    assert sum(accounts) == pytest.approx(reading.endpoint, abs=1e-9)
    assert sum(e.gain for e in reading.entries) == pytest.approx(reading.endpoint, abs=1e-9)


def test_narrow_nets_are_given_room() -> None:
    torch.manual_seed(0)
    parts = [p for _ in range(10) for p in (nn.Linear(4, 4), nn.ReLU())]
    reading = depth.read(record(nn.Sequential(*parts, nn.Linear(4, 2)), torch.randn(8, 4)))
    assert reading is None or reading.limit == pytest.approx(1.5 * math.sqrt(5 * len(reading.layers) / 4))


@given(st.floats(-3, 3), st.floats(-100, 100), st.integers(2, 600), st.integers(0, 2**32 - 1))
def test_theil_sen_finds_the_slope_among_outliers(slope: float, start: float, count: int, seed: int) -> None:
    values = start + slope * np.arange(count)
    assert depth.theil_sen(values) == pytest.approx(slope, abs=1e-9)
    spoiled = np.random.default_rng(seed).choice(count, count // 5, replace=False)
    values[spoiled] += 1e3
    if count >= 20:
        assert depth.theil_sen(values) == pytest.approx(slope, abs=2 * 1e3 / count)
