"""Margins on cosines, as losses of faces write them, leave their scale what it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

N = 48
X = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
Loss = Callable[[Tensor], Tensor]
SCALE, MARGIN, CLASSES = 64.0, 0.5, 12
LABELS = torch.arange(N) % CLASSES
ONE_HOT = functional.one_hot(LABELS, CLASSES).float()


def subtract(c: Tensor) -> Tensor:
    return SCALE * (c - 0.35 * ONE_HOT)


def turn(c: Tensor) -> Tensor:
    angle = torch.acos(c.clamp(-1 + 1e-7, 1 - 1e-7))
    return SCALE * torch.where(ONE_HOT.bool(), torch.cos(angle + MARGIN), c)


def turn_by_sine(c: Tensor) -> Tensor:
    sine = torch.sqrt((1.0 - torch.pow(c, 2)).clamp(0, 1))
    turned = c * math.cos(MARGIN) - sine * math.sin(MARGIN)
    turned = torch.where(c > math.cos(math.pi - MARGIN), turned, c - math.sin(math.pi - MARGIN) * MARGIN)
    out = (ONE_HOT * turned) + ((1.0 - ONE_HOT) * c)
    out *= SCALE
    return out


def turn_in_place(c: Tensor) -> Tensor:
    logits = c.clone()
    rows = torch.arange(N)
    logits[rows, LABELS] = torch.cos(torch.acos(c[rows, LABELS].clamp(-0.99, 0.99)) + MARGIN)
    return logits * SCALE


def scatter(c: Tensor) -> Tensor:
    margins = torch.zeros_like(c).scatter_(1, LABELS[:, None], 0.35)
    return (c - margins) / (1 / SCALE)


def beside_lengths(c: Tensor) -> Tensor:
    """Cosines beside logits that nothing bounds."""
    return c + 40 * c.cumsum(1)


class Faces(nn.Module):
    """Cosines between features and class centres; `bound` False: their lengths count."""

    def __init__(self, margin: Loss, bound: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
        self.centres = nn.Parameter(torch.randn(CLASSES, 16))
        self.margin, self.bound = margin, bound

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        if not self.bound:
            return self.margin(functional.linear(h, self.centres))
        return self.margin(functional.linear(functional.normalize(h), functional.normalize(self.centres)))


def judge_faces(margin: Loss, bound: bool = True) -> tuple[str, ...]:
    torch.manual_seed(0)
    net = Faces(margin, bound)
    return unvanish.check(
        net, (X, LABELS), nn.CrossEntropyLoss(), confirm=False, select=["OUT003", "OUT006"]
    ).codes("note")


@pytest.mark.parametrize("margin", [subtract, turn, turn_by_sine, turn_in_place, scatter])
def test_a_margin_on_a_cosine_keeps_it_one(margin: Loss) -> None:
    assert judge_faces(margin) == ()


@pytest.mark.parametrize(("margin", "bound"), [(subtract, False), (scatter, False), (beside_lengths, True)])
def test_what_nothing_bounds_is_no_cosine(margin: Loss, bound: bool) -> None:
    assert judge_faces(margin, bound) == ("OUT003",)


def test_a_margin_leaves_a_temperature_that_is_far_too_low_visible() -> None:
    assert judge_faces(lambda c: 10 * subtract(c)) == ("OUT003",)
