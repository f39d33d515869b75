"""Logits that are cosines: temperatures that are far too low, far too high, and those in use."""

from __future__ import annotations

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
