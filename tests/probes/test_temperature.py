"""Logits that are cosines: temperatures that are far too low, far too high, and those in use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish
from unvanish.probes.temperature import find_cosine_scale

N = 48
X = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
OWN, PARTNER = torch.arange(N), torch.arange(N) ^ 1
Loss = Callable[[Tensor], Tensor]


def compare(scale: float) -> Loss:
    def loss(o: Tensor) -> Tensor:
        z = functional.normalize(o)
        return functional.cross_entropy(scale * (z @ z.roll(1, 0).T), OWN)

    return loss


def leave_self(scale: float) -> Loss:
    def loss(o: Tensor) -> Tensor:
        z = functional.normalize(o)
        logits = (z @ z.T / (1 / scale)).masked_fill(torch.eye(N).bool(), -1e9)
        return functional.cross_entropy(logits, PARTNER)

    return loss


def by_hand(scale: float) -> Loss:
    def loss(o: Tensor) -> Tensor:
        z = functional.normalize(o)
        return -((scale * z) @ z.roll(1, 0).t()).log_softmax(1).diag().mean()

    return loss


def judge(loss: Loss) -> tuple[str, ...]:
    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
    return unvanish.check(net, X, loss, confirm=False, select=["OUT003", "OUT006"]).codes("note")


@pytest.mark.parametrize("form", [compare, leave_self, by_hand])
@pytest.mark.parametrize(
    ("scale", "codes"),
    [(1000.0, ("OUT003",)), (100.0, ()), (10.0, ()), (1.0, ()), (0.1, ("OUT006",)), (0.01, ("OUT006",))],
)
def test_a_temperature_is_judged(form: Callable[[float], Loss], scale: float, codes: tuple[str, ...]) -> None:
    assert judge(form(scale)) == codes


def test_products_of_other_rows_have_no_factor() -> None:
    a = torch.randn(5, 3, requires_grad=True)
    assert find_cosine_scale((a @ a.T).grad_fn) is None
    z = functional.normalize(a)
    assert find_cosine_scale((3 * (z @ z.T) / 0.5).grad_fn) == pytest.approx(6.0)
    assert find_cosine_scale((z @ z.T).relu().grad_fn) is None


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
