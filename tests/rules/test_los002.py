"""LOS002 and OUT006: losses that make answers worse, by a slip or on purpose, and where that is flat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torch.nn import functional

import unvanish

N = 48
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 8, generator=GENERATOR)
NUMBERS = X[:, :3].sum(1, keepdim=True)
CLASSES = (X @ torch.randn(8, 4, generator=GENERATOR)).argmax(1)
ONE_HOT = functional.one_hot(CLASSES, 4).float()
YES_NO = (NUMBERS > 0).float()
SIZES = NUMBERS[:, 0].abs()
ZEROS, ONES = torch.zeros(N, 1), torch.ones(N, 1)
Loss = Callable[..., Tensor]


def build(width: int, *last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, width), *last)


def build_judge(bias: float) -> nn.Module:
    torch.manual_seed(3)
    found = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    nn.init.constant_(found.get_parameter("2.bias"), bias)
    return found


SURE, OPEN = build_judge(-7.0), build_judge(0.0)


def binary(p: Tensor, y: Tensor) -> Tensor:
    return (y * (p + 1e-7).log() + (1 - y) * (1 - p + 1e-7).log()).mean()


FLIPPED: dict[str, tuple[nn.Module, Tensor, Loss]] = {
    "cross-entropy": (build(4), CLASSES, lambda o, y: -functional.cross_entropy(o, y)),
    "times minus one": (build(4), CLASSES, lambda o, y: functional.cross_entropy(o, y) * -1),
    "squared": (build(1), NUMBERS, lambda o, y: -functional.mse_loss(o, y)),
    "squared by hand": (build(1), NUMBERS, lambda o, y: -((o - y) ** 2).mean()),
    "binary": (build(1), YES_NO, lambda o, y: 0 - functional.binary_cross_entropy_with_logits(o, y)),
    "binary by hand": (build(1, nn.Sigmoid()), YES_NO, binary),
    "picked": (build(4, nn.LogSoftmax(1)), CLASSES, lambda o, y: o[range(len(y)), y].mean()),
    "gathered": (build(4, nn.LogSoftmax(1)), CLASSES, lambda o, y: o.gather(1, y[:, None]).sum()),
    "weighed": (build(4), ONE_HOT, lambda o, y: (y * o.log_softmax(1)).sum(1).mean()),
    "likelihood": (build(4), CLASSES, lambda o, y: Categorical(logits=o).log_prob(y).mean()),
}
MASKS = (torch.rand(N, 4, generator=GENERATOR) > 0.7).float()


def overlap(p: Tensor, y: Tensor) -> Tensor:
    return (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


def weigh_sure(z: Tensor) -> Tensor:
    return z.sigmoid() * functional.logsigmoid(z)


def tversky(z: Tensor, y: Tensor) -> Tensor:
    p = z.sigmoid()
    right, extra, missed = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
    return (right + 1) / (right + 0.3 * extra + 0.7 * missed + 1)


POSITIVE: dict[str, tuple[nn.Module, Tensor, Loss]] = {
    "ten less a cross-entropy": (build(4), CLASSES, lambda o, y: 10 - functional.cross_entropy(o, y)),
    "a hundred less an error": (build(1), NUMBERS, lambda o, y: 100 - functional.mse_loss(o, y)),
    "fifty less an error by hand": (build(1), NUMBERS, lambda o, y: 50 - (o - y).abs().mean()),
    "exponential": (build(4), CLASSES, lambda o, y: torch.exp(-functional.cross_entropy(o, y))),
    "inverse": (build(1), NUMBERS, lambda o, y: 1 / (functional.mse_loss(o, y) + 1e-6)),
    "probability": (build(4, nn.Softmax(1)), CLASSES, lambda o, y: o.gather(1, y[:, None]).mean()),
    "overlap": (build(4, nn.Sigmoid()), MASKS, overlap),
    "overlap of logits": (build(4), MASKS, lambda o, y: overlap(o.sigmoid(), y)),
    "weighed overlap": (build(4), MASKS, tversky),
    "cosine": (build(4), X[:, :4], lambda o, y: 1 + functional.cosine_similarity(o, y).mean()),
    "density": (build(1), NUMBERS, lambda o, y: 10 + Normal(o, 5.0).log_prob(y).mean()),
    "beside a penalty": (
        build(4), CLASSES, lambda o, y: o.square().mean() * 10 - 0.1 * functional.cross_entropy(o, y),
    ),
}  # fmt: skip
FLAT: dict[str, Loss] = {
    "log": lambda o: torch.log(1 - SURE(o).sigmoid()).mean(),
    "log, summed": lambda o: torch.log(1 - SURE(o).sigmoid() + 1e-8).sum(),
    "log1p": lambda o: torch.log1p(-SURE(o).sigmoid()).mean(),
    "log-sigmoid": lambda o: functional.logsigmoid(-SURE(o)).mean(),
    "softplus": lambda o: -functional.softplus(SURE(o)).mean(),
    "binary": lambda o: -functional.binary_cross_entropy(SURE(o).sigmoid(), ZEROS),
    "binary logits": lambda o: -functional.binary_cross_entropy_with_logits(SURE(o), ZEROS),
    "above zero": lambda o: 1 + torch.log(1 - SURE(o).sigmoid() + 1e-8).mean(),
    "above zero, binary": lambda o: 2 - functional.binary_cross_entropy_with_logits(SURE(o), ZEROS),
    "without a logarithm": lambda o: (1 - SURE(o).sigmoid()).mean(),
    "squared": lambda o: ((SURE(o).sigmoid() - 1) ** 2).mean(),
}
MEANT: dict[str, tuple[int, Tensor | None, Loss]] = {
    "not saturating": (4, None, lambda o: -SURE(o).sigmoid().log().mean()),
    "not saturating, binary": (4, None, lambda o: functional.binary_cross_entropy_with_logits(SURE(o), ONES)),
    "saturating, at the start": (4, None, lambda o: torch.log(1 - OPEN(o).sigmoid()).mean()),
    "a critic": (4, None, lambda o: -SURE(o).mean()),
    "a sure and right judge": (4, None, lambda o: nn.BCEWithLogitsLoss()(SURE(o), ZEROS)),
    "entropy": (4, None, lambda o: (o.softmax(1) * o.log_softmax(1)).sum(1).mean()),
    "policy": (4, CLASSES, lambda o, y: -(Categorical(logits=o).log_prob(y) * NUMBERS[:, 0]).mean()),
    "policy with costs": (4, CLASSES, lambda o, y: (Categorical(logits=o).log_prob(y) * SIZES).mean()),
    "cosine": (1, NUMBERS, lambda o, y: -functional.cosine_similarity(o, y, 0).mean()),
    "density above one": (1, 0.01 * NUMBERS, lambda o, y: -Normal(o * 0.01, 0.03).log_prob(y).mean()),
    "flooding": (1, NUMBERS, lambda o, y: (functional.mse_loss(o, y) - 100).abs() + 100),
    "one less an overlap": (4, MASKS, lambda o, y: 1 - overlap(o.sigmoid(), y)),
    "one less a weighed overlap": (4, MASKS, lambda o, y: 1 - tversky(o, y)),
    "costs of yes and no": (4, MASKS, lambda o, y: (o.sigmoid() * (1 - y) + (1 - o.sigmoid()) * y).mean()),
    "correntropy": (1, NUMBERS, lambda o, y: 1 - torch.exp(-((o - y) ** 2)).mean()),
    "explained": (1, NUMBERS, lambda o, y: ((y - o) ** 2).sum() / ((y - y.mean()) ** 2).sum() - 1),
    "uncertain": (5, CLASSES, lambda o, y: o[:, 4].mean().exp() * nn.CrossEntropyLoss()(o[:, :4], y)),
    "yes without an answer": (
        4, MASKS, lambda o, y: -(y * o.sigmoid().log() + (1 - y) * (1 - o.sigmoid()).log()).mean(),
    ),
    "a sure policy's entropy": (
        1, YES_NO,
        lambda o, y: nn.BCEWithLogitsLoss()(o, y) + 0.1 * weigh_sure(o + 6).mean(),
    ),
    "gates that shall close": (
        4, CLASSES, lambda o, y: nn.CrossEntropyLoss()(o, y) + 0.01 * (o.mean() + 6).sigmoid().sum(),
    ),
    "overlap": (4, ONE_HOT, lambda o, y: -(o.sigmoid() * y).sum() / (o.sigmoid().sum() + y.sum())),
    "shared variance": (1, NUMBERS, lambda o, y: ((y - o) ** 2).sum() / y.square().sum() - 50),
    "two errors, one of them raised": (
        1, NUMBERS, lambda o, y: functional.mse_loss(o, y) - 3 * functional.l1_loss(o, y)
    ),
    "confused": (
        4, CLASSES,
        lambda o, y: functional.cross_entropy(o, y) - nn.BCEWithLogitsLoss()(OPEN(o), ONES),
    ),
}  # fmt: skip


def judge(net: nn.Module, batch: Any, loss: Loss) -> tuple[str, ...]:
    found = unvanish.check(net, batch, loss, confirm=False, select=["LOS002", "OUT006"])
    return found.codes("note")


@pytest.mark.parametrize("name", FLIPPED)
def test_a_wrong_sign_is_found(name: str) -> None:
    net, y, loss = FLIPPED[name]
    assert judge(net, (X, y), loss) == ("LOS002",)


@pytest.mark.parametrize("name", POSITIVE)
def test_a_wrong_sign_is_found_in_a_loss_above_zero(name: str) -> None:
    net, y, loss = POSITIVE[name]
    assert judge(net, (X, y), loss) == ("LOS002",)


@pytest.mark.parametrize("name", FLAT)
def test_a_saturating_loss_before_a_sure_judge_is_found(name: str) -> None:
    assert judge(build(4), X, FLAT[name]) == ("OUT006",)


@pytest.mark.parametrize("name", MEANT)
def test_what_is_meant_is_left_alone(name: str) -> None:
    width, y, loss = MEANT[name]
    assert judge(build(width), X if y is None else (X, y), loss) == ()


@pytest.mark.parametrize("name", ["cross-entropy", "squared by hand", "picked"])
def test_the_cure_makes_it_learn(name: str) -> None:
    net, y, loss = FLIPPED[name]
    cured = unvanish.cure(net, (X, y), loss)
    assert [r.cure for r in cured.prescription.remedies] == ["flip-sign"]
    assert unvanish.check(cured.model, (X, y), cured.loss).codes() == ()


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -0.5 * gradients[0]


class Adapted(nn.Module):
    """Classes, and the domain behind a reversal."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.label, self.domain = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.features(x))
        turned: Tensor = Reversed.apply(h)  # type: ignore[no-untyped-call]
        return self.label(h), self.domain(turned)


@pytest.mark.parametrize(("sign", "codes"), [(1.0, ()), (-0.3, ("LOS002",))])
def test_a_reversal_and_a_minus_undo_each_other(sign: float, codes: tuple[str, ...]) -> None:
    def loss(o: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(o[0], y[0]) + sign * functional.cross_entropy(o[1], y[1])

    torch.manual_seed(0)
    batch = X, (CLASSES, CLASSES % 2)
    found = unvanish.check(Adapted(), batch, loss, confirm=False, select=["LOS002"])
    assert found.codes() == codes
