"""Slips in the calls of a loss: signs that it expects, masks of 255, powers and divisors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

N = 64
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 8, generator=GENERATOR)
NUMBERS = X[:, :3].sum(1, keepdim=True)
YES = (torch.arange(N) % 2).float()[:, None]
SIGNS = 2 * YES - 1
CLASSES = torch.arange(N) % 4
Loss = Callable[[Tensor, Tensor], Tensor]


def focus(power: float) -> Loss:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        each = functional.cross_entropy(z, y, reduction="none")
        return ((1 - torch.exp(-each)) ** power * each).mean()

    return loss


def spread(make: Callable[[Tensor], Tensor]) -> Loss:
    """A Gaussian likelihood with a variance that `make` makes of the second unit."""
    return lambda o, y: nn.GaussianNLLLoss()(o[:, :1], y, make(o[:, 1:]))


def overlap(z: Tensor, y: Tensor) -> Tensor:
    p = z.sigmoid().flatten(1)
    return 1 - (2 * (p * y.flatten(1)).sum() + 1) / (p.sum() + y.sum() + 1)


def overlap_scores(z: Tensor, y: Tensor) -> Tensor:
    return 1 - (2 * (z * y).flatten().sum() + 1) / (z.flatten().sum() + y.sum() + 1)


def overlap_squares(z: Tensor, y: Tensor) -> Tensor:
    return 1 - 2 * (z * y).sum() / (z.square().sum() + y.square().sum())


LOGISTIC: Loss = lambda z, y: torch.log(1 + torch.exp(-y * z)).mean()  # noqa: E731
HINGE: Loss = lambda z, y: functional.relu(1 - y * z).mean()  # noqa: E731
SICK: dict[str, tuple[str, int, Tensor, Loss]] = {
    "hinge": ("OUT005", 1, YES, HINGE),
    "hinge, clamped and squared": ("OUT005", 1, YES, lambda z, y: (1 - z * y).clamp(min=0).square().mean()),
    "logistic": ("OUT005", 1, YES, LOGISTIC),
    "soft margin": ("OUT005", 1, YES, nn.SoftMarginLoss()),
    "ranking": ("OUT005", 2, YES, lambda o, y: nn.MarginRankingLoss()(o[:, :1], o[:, 1:], y)),
    "hinge of distances": ("OUT005", 1, YES, lambda o, y: nn.HingeEmbeddingLoss()(o.square(), y)),
    "masks of 255": ("OUT005", 1, 255 * YES, overlap),
    "an overlap of scores": ("OUT001", 1, YES, overlap_scores),
    "a focus of 50": ("OUT006", 4, CLASSES, focus(50.0)),
    "a variance that is cut off": ("OUT001", 2, NUMBERS, spread(lambda v: functional.relu(-v))),
}
FINE: dict[str, tuple[int, Tensor, Loss]] = {
    "an overlap of squares": (1, YES, overlap_squares),
    "hinge": (1, SIGNS, HINGE),
    "logistic": (1, SIGNS, LOGISTIC),
    "soft margin": (1, SIGNS, nn.SoftMarginLoss()),
    "ranking": (2, SIGNS, lambda o, y: nn.MarginRankingLoss()(o[:, :1], o[:, 1:], y)),
    "overlap": (1, YES, overlap),
    "a focus of 2": (4, CLASSES, focus(2.0)),
    "a focus of 5": (4, CLASSES, focus(5.0)),
    "a variance of softplus": (2, NUMBERS, spread(functional.softplus)),
    "a variance of exp": (2, NUMBERS, spread(torch.exp)),
    "pairs, by distances": (
        1, YES, lambda d, y: (y * d.square() + (1 - y) * functional.relu(2 - d.abs()).square()).mean(),
    ),
    "costs": (1, YES, lambda z, y: (z.sigmoid() * (1 - y) * 2 + (1 - z.sigmoid()) * y).mean()),
    "a masked error": (1, NUMBERS, lambda z, y: ((z - y).square() * (y > 0)).mean()),
}  # fmt: skip


def judge(width: int, y: Tensor, loss: Loss) -> tuple[str, ...]:
    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, width))
    codes = ["OUT001", "OUT005", "OUT006", "LOS002"]
    return unvanish.check(net, (X, y), loss, confirm=False, select=codes).codes()


@pytest.mark.parametrize("name", SICK)
def test_a_slip_is_found(name: str) -> None:
    code, width, y, loss = SICK[name]
    assert judge(width, y, loss) == (code,)


@pytest.mark.parametrize("name", FINE)
def test_what_is_usual_is_left_alone(name: str) -> None:
    width, y, loss = FINE[name]
    assert judge(width, y, loss) == ()


def test_embeddings_that_are_all_alike_are_found() -> None:
    def compare(o: Tensor) -> Tensor:
        return functional.triplet_margin_loss(o, o.roll(1, 0), o.roll(2, 0))

    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 6))
    assert unvanish.check(net, X, compare, confirm=False, select=["OUT006"]).codes() == ()
    net[2].weight.data *= 1e-7
    assert unvanish.check(net, X, compare, confirm=False, select=["OUT006"]).codes() == ("OUT006",)
