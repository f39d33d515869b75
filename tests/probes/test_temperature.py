"""Logits that are cosines: temperatures that are far too low, far too high, and those in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish
from unvanish.probes.temperature import find_cosines

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
    [
        (1000.0, ("OUT003",)),
        (100.0, ()),
        (10.0, ()),
        (1.0, ("OUT006",)),
        (0.1, ("OUT006",)),
        (0.01, ("OUT006",)),
    ],
)
def test_a_temperature_is_judged(form: Callable[[float], Loss], scale: float, codes: tuple[str, ...]) -> None:
    assert judge(form(scale)) == codes


def test_products_of_other_rows_have_no_factor() -> None:
    a = torch.randn(5, 3, requires_grad=True)
    assert find_cosines((a @ a.T).grad_fn) is None
    z = functional.normalize(a)
    found = find_cosines((3 * (z @ z.T) / 0.5).grad_fn)
    assert found is not None and found.factor == pytest.approx(6.0)
    assert find_cosines((z @ z.T).relu().grad_fn) is None


W = torch.randn(40, 16, generator=torch.Generator().manual_seed(1))
KEYS = functional.normalize(W, dim=1)


def summed(z: Tensor) -> Tensor:
    return (functional.normalize(z)[:, None] * KEYS[None]).sum(-1)


def divided(z: Tensor) -> Tensor:
    return (z @ W.T) / (z.norm(dim=1)[:, None] * W.norm(dim=1)[None])


def own_function(z: Tensor) -> Tensor:
    return functional.cosine_similarity(z[:, None], W[None], dim=-1)


def put_together(z: Tensor) -> Tensor:
    q = functional.normalize(z)
    return torch.cat([torch.einsum("nc,nc->n", q, KEYS[:1].expand(N, -1))[:, None], q @ KEYS[1:].T], 1)


def with_margin(z: Tensor) -> Tensor:
    return functional.normalize(z) @ KEYS.T - 0.3 * functional.one_hot(OWN % 40, 40).float()


def on_angles(z: Tensor) -> Tensor:
    cosine = (functional.normalize(z) @ KEYS.T).clamp(-0.999, 0.999)
    return torch.cos(torch.acos(cosine) + 0.3 * functional.one_hot(OWN % 40, 40).float())


def by_convolution(z: Tensor) -> Tensor:
    image = functional.normalize(z)[:, :, None, None]
    return functional.conv2d(image, KEYS[:, :, None, None]).flatten(1)


FORMS = [summed, divided, own_function, put_together, with_margin, on_angles, by_convolution]


@pytest.mark.parametrize("form", FORMS)
def test_cosines_without_a_factor_are_seen_however_they_are_written(form: Loss) -> None:
    def scaled(scale: float) -> Loss:
        return lambda o: functional.cross_entropy(scale * form(o), OWN % 40)

    assert judge(scaled(1.0)) == ("OUT006",)
    assert judge(scaled(16.0)) == ()


def test_few_classes_and_a_learned_factor_are_left_alone() -> None:
    learned = nn.Parameter(torch.zeros(()))
    assert judge(lambda o: functional.cross_entropy(summed(o)[:, :5], OWN % 5)) == ()
    assert judge(lambda o: functional.cross_entropy(summed(o) * learned.exp(), OWN % 40)) == ()


def test_yes_and_no_by_a_cosine_are_never_sure() -> None:
    def loss(o: Tensor, scale: float) -> Tensor:
        cosine = functional.cosine_similarity(o, o.roll(1, 0).detach())
        return functional.binary_cross_entropy_with_logits(scale * cosine, (OWN % 2).float())

    assert judge(lambda o: loss(o, 1.0)) == ("OUT006",)
    assert judge(lambda o: loss(o, 10.0)) == ()


@pytest.mark.parametrize(
    ("factor", "codes"), [(1.0, ()), (0.1, ()), (1 / 64, ()), (0.01, ("OUT006",)), (0.001, ("OUT006",))]
)
def test_scores_that_are_made_small(factor: float, codes: tuple[str, ...]) -> None:
    assert judge(lambda o: functional.cross_entropy(factor * o, OWN % 16)) == codes
    assert judge(lambda o: functional.cross_entropy(o / (1 / factor), OWN % 16)) == codes
