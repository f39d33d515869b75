"""What has no slope keeps a term of a loss from weights that another moves; a way around it is innocent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish


class Coder(nn.Module):
    """Codes by `squeeze`, and what was rebuilt of them."""

    def __init__(self, squeeze: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.e, self.d, self.squeeze = nn.Linear(10, 8), nn.Linear(8, 10), squeeze

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.e(x)
        return self.d(self.squeeze(z)), z


def penalised(out: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    """An error and a power of the codes, per sample."""
    rebuilt, z = out
    each = (rebuilt - x).square().sum(1) + 0.01 * z.square().sum(1)
    return each.mean()


WAYS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a draw": (lambda z: torch.normal(z, 0.1), "normal"),
    "a sign": (torch.sign, "sign"),
    "a rounding": (lambda z: torch.round(4 * z) / 4, "round"),
    "drawn with its noise apart": (lambda z: z + 0.1 * torch.randn_like(z), ""),
    "straight through": (lambda z: z + (torch.round(z) - z).detach(), ""),
    "the root with its sign": (lambda z: torch.sign(z) * (z.abs() + 1e-3).sqrt(), ""),
    "what is left of a rounding": (lambda z: z - torch.floor(z), ""),
}


@pytest.mark.parametrize("how", WAYS)
def test_codes_without_a_slope_beside_a_penalty(how: str) -> None:
    torch.manual_seed(0)
    squeeze, kind = WAYS[how]
    x = torch.randn(32, 10)
    found = unvanish.check(Coder(squeeze), (x, x), penalised, confirm=False).walk()
    own = [f for f in found if f.code == "GRF004" and f.severity == "error"]
    assert [f.cause.startswith(kind) and "e.weight" in f.cause for f in own] == [True] * bool(kind)


@pytest.mark.parametrize(("mode", "wrong"), [("nearest", True), ("bilinear", False)])
def test_a_warp_by_the_nearest_place(mode: str, wrong: bool) -> None:
    torch.manual_seed(0)

    class Warp(nn.Module):
        """Moves a picture by a field."""

        def __init__(self) -> None:
            super().__init__()
            self.field = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Any:
            grid = self.field(x).permute(0, 2, 3, 1)
            return nn.functional.grid_sample(x, grid, mode=mode, align_corners=False), grid

    def loss(out: Any, y: Tensor) -> Tensor:
        total: Tensor = (out[0] - y).square().mean() + 0.1 * out[1].square().mean()
        return total

    x = torch.randn(4, 1, 8, 8)
    found = unvanish.check(Warp(), (x, x.flip(3)), loss, confirm=False)
    assert ("GRF004" in found.codes()) == wrong


def test_the_likelihood_of_a_draw_is_taken_around_it() -> None:
    torch.manual_seed(0)

    class Policy(nn.Module):
        """The log-likelihood of an action, and its size."""

        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Any:
            mean = self.mean(x)
            action = torch.normal(mean, 1.0)
            return -0.5 * (action - mean).square().sum(1), mean

    def loss(out: Any, reward: Tensor) -> Tensor:
        total: Tensor = -(out[0] * reward).mean() + 0.01 * out[1].square().mean()
        return total

    found = unvanish.check(Policy(), (torch.randn(32, 6), torch.randn(32)), loss, confirm=False)
    assert "GRF004" not in found.codes()


class Routed(nn.Module):
    """The best of three experts, weighed by `weigh` of its probability, and a balance of all."""

    def __init__(self, weigh: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate, self.experts, self.weigh = nn.Linear(10, 3, bias=False), nn.Linear(10, 30), weigh

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p = self.gate(x).softmax(-1)
        top, best = p.topk(1, -1)
        made = self.experts(x).view(len(x), 3, 10).gather(1, best[..., None].expand(-1, -1, 10))[:, 0]
        return self.weigh(top) * made, p


@pytest.mark.parametrize(
    ("weigh", "wrong"),
    [
        (lambda p: p / (p.sum(-1, keepdim=True) + 1e-20), True),
        (lambda p: p.softmax(-1), True),
        (lambda p: p, False),
        (lambda p: p / p.detach(), False),
    ],
)
def test_one_score_over_itself_beside_a_balance(weigh: Callable[[Tensor], Tensor], wrong: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 10)

    def loss(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return (out[0] - y).square().mean() + 0.01 * 3 * out[1].mean(0).square().sum()

    found = unvanish.check(Routed(weigh), (x, x), loss, confirm=False).walk()
    assert ["gate.weight" in f.cause for f in found if f.code == "GRF004"] == [True] * wrong
