"""Outputs that cannot reach their targets, and losses that read the wrong numbers: how people write them, and
the look-alikes that are meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

N = 48
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 8, generator=GENERATOR)
NUMBERS = X[:, :3].sum(1, keepdim=True)
CLASSES = (X @ torch.randn(8, 4, generator=GENERATOR)).argmax(1)
ONE_HOT = functional.one_hot(CLASSES, 4).float()
SEVERAL = (X[:, :4] > 0).float()
YES_NO = (NUMBERS > 0).float()
SHARES = torch.softmax(torch.randn(N, 4, generator=GENERATOR), 1)
MARKED = YES_NO.clone()
MARKED[:10] = -1
SQUARED, BINARY, LOGITS, ENTROPY = nn.MSELoss(), nn.BCELoss(), nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss()
LIKELIHOOD, DIVERGENCE = nn.NLLLoss(), nn.KLDivLoss(reduction="batchmean")
Loss = Callable[..., Tensor]
Row = tuple[nn.Module, Tensor, Loss]


class Finished(nn.Module):
    """A function of a small net."""

    def __init__(self, width: int, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.last = build(width), last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.net(x))


def build(width: int, *last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, width), *last)


def by_hand(p: Tensor, y: Tensor) -> Tensor:
    return -(p.exp() / p.exp().sum(1, keepdim=True)).log()[range(len(y)), y].mean()


OUT_OF_REACH: dict[str, Row] = {
    "sigmoid for numbers": (build(1, nn.Sigmoid()), NUMBERS, SQUARED),
    "tanh for larger numbers": (build(1, nn.Tanh()), 3 * NUMBERS, SQUARED),
    "relu for negative ones": (build(1, nn.ReLU()), NUMBERS, SQUARED),
    "softplus for negative ones": (build(1, nn.Softplus()), NUMBERS, nn.L1Loss()),
    "a sigmoid called": (Finished(1, torch.sigmoid), NUMBERS, nn.HuberLoss()),
    "a sigmoid in the loss": (build(1), NUMBERS, lambda o, y: functional.mse_loss(torch.sigmoid(o), y)),
    "a difference by hand": (build(1, nn.Sigmoid()), NUMBERS, lambda o, y: (y - o).pow(2).mean()),
    "a clamp": (Finished(1, lambda o: o.clamp(0, 1)), NUMBERS, SQUARED),
    "sigmoid for plus and minus one": (build(1, nn.Sigmoid()), 2 * YES_NO - 1, SQUARED),
    "softmax of one unit": (build(1, nn.Softmax(1)), YES_NO, BINARY),
    "softmax of one unit, for numbers": (build(1, nn.Softmax(-1)), NUMBERS, SQUARED),
    "cross-entropy of one logit": (build(1), torch.zeros(N, dtype=torch.long), ENTROPY),
    "softmax for several labels": (build(4, nn.Softmax(1)), SEVERAL, SQUARED),
    "softmax for several labels, binary": (build(4, nn.Softmax(1)), SEVERAL, BINARY),
    "softmax over the samples": (build(4, nn.Softmax(0)), ONE_HOT, SQUARED),
    "log-softmax over the samples": (build(4, nn.LogSoftmax(0)), CLASSES, LIKELIHOOD),
    "tanh for logits": (build(4, nn.Tanh()), CLASSES, ENTROPY),
    "tanh for a logit": (build(1, nn.Tanh()), YES_NO, LOGITS),
    "relu for logits": (build(4, nn.ReLU()), CLASSES, ENTROPY),
    "relu for a logit": (build(1, nn.ReLU()), YES_NO, LOGITS),
}
WRONG_NUMBERS: dict[str, Row] = {
    "sigmoid and cross-entropy": (build(4, nn.Sigmoid()), CLASSES, ENTROPY),
    "sigmoid and its logits": (build(1, nn.Sigmoid()), YES_NO, LOGITS),
    "no logarithm": (build(4, nn.Softmax(1)), CLASSES, LIKELIHOOD),
    "no logarithm of a sigmoid": (build(4, nn.Sigmoid()), CLASSES, LIKELIHOOD),
    "scores": (build(4), CLASSES, LIKELIHOOD),
    "divergence of probabilities": (build(4, nn.Softmax(1)), SHARES, DIVERGENCE),
    "divergence of scores": (build(4), SHARES, DIVERGENCE),
    "again, by hand": (build(4, nn.Softmax(1)), CLASSES, by_hand),
    "again, by logsumexp": (
        build(4, nn.Softmax(1)), CLASSES,
        lambda p, y: -(p - p.logsumexp(1, keepdim=True))[range(len(y)), y].mean(),
    ),
    "again, by a function": (
        build(4, nn.Softmax(1)), ONE_HOT, lambda p, y: -(y * functional.log_softmax(p, 1)).sum(1).mean()
    ),
    "again, in the model": (build(4, nn.Softmax(1), nn.LogSoftmax(1)), CLASSES, LIKELIHOOD),
}  # fmt: skip
MEANT: dict[str, Row] = {
    "linear": (build(1), NUMBERS, SQUARED),
    "sigmoid for shares": (build(1, nn.Sigmoid()), NUMBERS.sigmoid(), SQUARED),
    "tanh within one": (build(1, nn.Tanh()), NUMBERS.tanh(), SQUARED),
    "relu for sizes": (build(1, nn.ReLU()), NUMBERS.abs(), SQUARED),
    "exp for sizes": (Finished(1, torch.exp), NUMBERS.abs(), SQUARED),
    "leaky": (build(1, nn.LeakyReLU(0.2)), NUMBERS, SQUARED),
    "an outlier": (build(1, nn.Tanh()), NUMBERS.tanh() + (torch.arange(N)[:, None] == 3), SQUARED),
    "a scaled tanh": (Finished(1, lambda o: 5 * o.tanh()), NUMBERS, SQUARED),
    "a soft cap": (Finished(4, lambda o: 30 * (o / 30).tanh()), CLASSES, ENTROPY),
    "cosines": (Finished(4, lambda o: 20 * functional.normalize(o, dim=1)), CLASSES, ENTROPY),
    "binary": (build(1, nn.Sigmoid()), YES_NO, BINARY),
    "logits": (build(1), YES_NO, LOGITS),
    "marks, masked": (build(1, nn.Sigmoid()), MARKED, lambda o, y: ((o - y) ** 2 * (y >= 0)).mean()),
    "marks, unreduced": (
        build(1, nn.Sigmoid()), MARKED,
        lambda o, y: (functional.mse_loss(o, y, reduction="none") * (y >= 0)).mean(),
    ),
    "softmax for one label": (build(4, nn.Softmax(1)), ONE_HOT, SQUARED),
    "softmax for one label, binary": (build(4, nn.Softmax(1)), ONE_HOT, BINARY),
    "log-softmax": (build(4, nn.LogSoftmax(1)), CLASSES, LIKELIHOOD),
    "log-softmax twice": (build(4, nn.LogSoftmax(1)), CLASSES, ENTROPY),
    "the logarithm in the loss": (
        build(4, nn.Softmax(1)), CLASSES, lambda p, y: functional.nll_loss(p.clamp_min(1e-8).log(), y)
    ),
    "a focal loss": (
        build(4), CLASSES,
        lambda o, y: functional.nll_loss((1 - o.softmax(1)) ** 2 * o.log_softmax(1), y),
    ),
    "a temperature": (build(4), CLASSES, lambda o, y: functional.nll_loss(o.log_softmax(1) / 0.5, y)),
    "an advantage": (build(4), CLASSES, lambda o, y: functional.nll_loss(o.log_softmax(1) * NUMBERS, y)),
    "divergence": (build(4, nn.LogSoftmax(1)), SHARES, DIVERGENCE),
    "shares as labels": (build(4), SHARES, ENTROPY),
    "an entropy": (
        build(4), CLASSES,
        lambda o, y: functional.cross_entropy(o, y) + 0.01 * (o.softmax(1) * o.log_softmax(1)).sum(1).mean(),
    ),
}  # fmt: skip


def judge(row: Row, *codes: str) -> tuple[str, ...]:
    net, y, loss = row
    return unvanish.check(net, (X, y), loss, confirm=False, theory=False, select=codes or None).codes("note")


@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_an_output_that_cannot_reach_its_targets_is_found(name: str) -> None:
    assert judge(OUT_OF_REACH[name])[0] == "OUT001"


@pytest.mark.parametrize("name", WRONG_NUMBERS)
def test_probabilities_in_the_wrong_place_are_found(name: str) -> None:
    assert judge(WRONG_NUMBERS[name])[0] == "OUT002"


@pytest.mark.parametrize("name", MEANT)
def test_what_is_meant_is_left_alone(name: str) -> None:
    assert judge(MEANT[name]) == ()


CURED: dict[str, tuple[Row, str]] = {
    "sigmoid for numbers": (OUT_OF_REACH["sigmoid for numbers"], "swap-output-function"),
    "a sigmoid called": (OUT_OF_REACH["a sigmoid called"], "swap-output-function"),
    "a sigmoid in the loss": (OUT_OF_REACH["a sigmoid in the loss"], "swap-output-function"),
    "softmax of one unit": (OUT_OF_REACH["softmax of one unit"], "swap-output-function"),
    "tanh for logits": (OUT_OF_REACH["tanh for logits"], "swap-output-function"),
    "no logarithm": (WRONG_NUMBERS["no logarithm"], "swap-output-function"),
    "scores": (WRONG_NUMBERS["scores"], "insert-log-softmax"),
    "again, by hand": (WRONG_NUMBERS["again, by hand"], "remove-softmax"),
}


@pytest.mark.parametrize("name", CURED)
def test_the_cure_leaves_nothing_to_find(name: str) -> None:
    (net, y, loss), wanted = CURED[name]
    cured: Any = unvanish.cure(net, (X, y), loss)
    assert [r.cure for r in cured.prescription.remedies] == [wanted]
    assert not unvanish.check(cured.model, (X, y), cured.loss or loss).findings
