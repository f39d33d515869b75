"""GRF007: losses that depend on nothing, so that the gradients of all parameters are rounding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(64, 16, generator=GENERATOR), torch.randint(0, 4, (64,), generator=GENERATOR)
Loss = Callable[..., Tensor]


def judge(loss: Loss, *ends: nn.Module, y: Tensor | None = None) -> list[str]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4), *ends)
    found = unvanish.check(net, X if y is None else (X, y), loss, confirm=False)
    return [f"{f.code} {f.severity} {f.cause}" for f in found.findings]


SICK: dict[str, tuple[Loss, nn.Module]] = {
    "the sum of a softmax": (lambda o: ((o.sum(-1) - 2) ** 2).mean(), nn.Softmax(-1)),
    "the mean of a softmax": (lambda o: o.mean(), nn.Softmax(-1)),
    "the sum of a norm": (lambda o: ((o.sum(-1) - 1) ** 2).mean(), nn.LayerNorm(4, elementwise_affine=False)),
    "the mean over the batch of its norm": (
        lambda o: (o.mean(0) - 1).pow(2).sum(),
        nn.BatchNorm1d(4, affine=False),
    ),
}


@pytest.mark.parametrize("name", SICK)
def test_a_loss_that_depends_on_nothing_is_found(name: str) -> None:
    (said,) = judge(*SICK[name])
    assert said.startswith("GRF007 error the gradients of all 4 parameters are mere rounding")


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("inner", [1e-6, 1.0])
def test_a_gradient_that_is_small_is_not_rounding(scale: float, inner: float) -> None:
    found = judge(lambda o, y: scale * functional.cross_entropy(o * inner, y), y=Y)
    assert [f.partition(" ")[0] for f in found] == ([] if inner == 1 else ["OUT006"])  # the factor itself


def test_a_model_at_its_minimum_is_left_alone() -> None:
    torch.manual_seed(0)
    net, loss, y = nn.Linear(16, 4), nn.MSELoss(), torch.randn(64, 4)
    net.weight.data, net.bias.data = _solve(y)
    assert unvanish.check(net, (X, y), loss, confirm=False).findings == ()


def _solve(y: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of least squares."""
    best = torch.linalg.lstsq(torch.cat([X, torch.ones(64, 1)], 1).double(), y.double()).solution.float()
    return best[:-1].T.contiguous(), best[-1].clone()
