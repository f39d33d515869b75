"""Losses written by hand, and those that take more than an output and a target."""

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
CLASSES = torch.arange(N) % 4
ONE_HOT = functional.one_hot(CLASSES, 4).float()
SEVERAL = (torch.randn(N, 4, generator=GENERATOR) > 0).float()
YES = (torch.arange(N) % 2).float()[:, None]
SOUND, TEXT = torch.randn(20, 4, 8, generator=GENERATOR), 1 + torch.arange(20).view(4, 5) % 3
COUNTS = (torch.arange(N) % 5).float()[:, None]
Loss = Callable[[Tensor, Tensor], Tensor]
Kind = tuple[list[nn.Module], Any, Loss]


def pick(p: Tensor, y: Tensor) -> Tensor:
    return -torch.log(p.gather(1, y[:, None])).mean()


def weigh(p: Tensor, y: Tensor) -> Tensor:
    return -(y * torch.log(p + 1e-7)).sum(1).mean()


def both(p: Tensor, y: Tensor) -> Tensor:
    return -(y * torch.log(p + 1e-7) + (1 - y) * torch.log(1 - p + 1e-7)).mean()


def overlap(p: Tensor, y: Tensor) -> Tensor:
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


def listen(steps: int, **how: Any) -> Loss:
    return lambda o, y: nn.CTCLoss(**how)(o[:steps], y, (steps,) * 4, (5,) * 4)


WRONG: dict[str, tuple[str, Kind]] = {
    "softmax over the samples, logarithm in the loss": (
        "OUT001", ([nn.Softmax(0)], CLASSES, lambda p, y: functional.nll_loss(p.log(), y)),
    ),
    "softmax over the samples, picked": ("OUT001", ([nn.Softmax(0)], CLASSES, pick)),
    "softmax over the samples, weighed": ("OUT001", ([nn.Softmax(0)], ONE_HOT, weigh)),
    "log-softmax over the samples, indexed": (
        "OUT001", ([nn.LogSoftmax(0)], CLASSES, lambda p, y: -p[range(N), y].mean()),
    ),
    "sigmoid, picked": ("OUT001", ([nn.Sigmoid()], CLASSES, pick)),
    "sigmoid, weighed": ("OUT001", ([nn.Sigmoid()], ONE_HOT, weigh)),
    "several labels, weighed": ("OUT001", ([nn.Softmax(1)], SEVERAL, weigh)),
    "several labels, yes and no by hand": ("OUT001", ([nn.Softmax(1)], SEVERAL, both)),
    "several labels under cross-entropy": ("OUT001", ([], SEVERAL, nn.CrossEntropyLoss())),
    "softmax over one unit, by hand": ("OUT001", ([nn.Linear(4, 1), nn.Softmax(1)], YES, both)),
    "softmax over one unit, an overlap": ("OUT001", ([nn.Linear(4, 1), nn.Softmax(1)], YES, overlap)),
    "a clamp instead of a sigmoid": ("OUT001", ([], SEVERAL, lambda z, y: nn.BCELoss()(z.clamp(0, 1), y))),
    "the largest probability as a class": (
        "OUT001", ([nn.Softmax(1)], CLASSES.float(), lambda p, y: nn.MSELoss()(p.max(1)[0], y)),
    ),
    "targets of two by hand": ("OUT005", ([nn.Sigmoid()], SEVERAL, lambda p, y: both(p, 2 * y))),
    "numbers for probabilities of classes": ("OUT005", ([], 3 * X[:, :4], nn.CrossEntropyLoss())),
    "one class, one-hot": ("OUT005", ([], ONE_HOT[:1].expand(N, 4), nn.CrossEntropyLoss())),
    "sigmoid, then softplus": (
        "OUT002", ([nn.Sigmoid()], SEVERAL, lambda z, y: (functional.softplus(z) - z * y).mean()),
    ),
    "softmax, then a temperature": (
        "OUT002", ([nn.Softmax(1)], CLASSES, lambda p, y: nn.CrossEntropyLoss()(p / 0.5, y)),
    ),
    "sigmoid in the model and in an overlap": (
        "OUT002", ([nn.Sigmoid()], SEVERAL, lambda p, y: overlap(p.sigmoid(), y)),
    ),
    "log-softmax as logits of yes and no": ("OUT001", ([nn.LogSoftmax(1)], ONE_HOT, nn.BCEWithLogitsLoss())),
    "sigmoid under a divergence": (
        "OUT001", ([nn.Sigmoid()], SEVERAL, lambda p, y: nn.KLDivLoss(reduction="batchmean")(p.log(), y)),
    ),
    "softmax twice in the model": ("OUT002", ([nn.Softmax(1), nn.Softmax(1)], ONE_HOT, nn.MSELoss())),
    "rates for their logarithms": ("OUT002", ([nn.Linear(4, 1), nn.Softplus()], COUNTS, nn.PoissonNLLLoss())),
    "divergence with its arguments swapped": (
        "OUT002", ([nn.Softmax(1)], ONE_HOT * 0.9 + 0.02, lambda p, y: nn.KLDivLoss()(y, p)),
    ),
}  # fmt: skip
RIGHT: dict[str, Kind] = {
    "picked": ([nn.Softmax(1)], CLASSES, pick),
    "weighed": ([nn.Softmax(1)], ONE_HOT, weigh),
    "logarithm in the loss": ([nn.Softmax(1)], CLASSES, lambda p, y: functional.nll_loss(p.log(), y)),
    "indexed": ([nn.LogSoftmax(1)], CLASSES, lambda p, y: -p[range(N), y].mean()),
    "yes and no by hand": ([nn.Sigmoid()], SEVERAL, both),
    "an overlap": ([nn.Sigmoid()], SEVERAL, overlap),
    "soft labels": ([], X[:, :4].softmax(1), nn.CrossEntropyLoss()),
    "a clamped sigmoid": ([nn.Sigmoid()], SEVERAL, lambda p, y: nn.BCELoss()(p.clamp(1e-6, 1 - 1e-6), y)),
    "values of actions": (
        [], (CLASSES, X[:, 0]), lambda q, y: nn.MSELoss()(q.gather(1, y[0][:, None])[:, 0], y[1]),
    ),
    "logarithms of rates": ([nn.Linear(4, 1)], COUNTS, nn.PoissonNLLLoss()),
    "rates": ([nn.Linear(4, 1), nn.Softplus()], COUNTS, nn.PoissonNLLLoss(log_input=False)),
    "several of a multinomial": ([], SEVERAL, lambda z, y: -(y * z.log_softmax(1)).sum(1).mean()),
    "survival": ([nn.Sigmoid()], SEVERAL, lambda s, y: -(y * (1 - s).log() + (1 - y) * s.log()).mean()),
    "reverse divergence": ([nn.Softmax(1)], ONE_HOT * 0.9 + 0.025, lambda p, y: nn.KLDivLoss()(y.log(), p)),
    "divergences of yes and of no": (
        [nn.Sigmoid()], SEVERAL,
        lambda p, y: nn.KLDivLoss()(p.log(), y) + nn.KLDivLoss()((1 - p).log(), 1 - y),
    ),
    "yes and no from one sigmoid": (
        [nn.Linear(4, 1), nn.Sigmoid()], YES[:, 0].long(),
        lambda p, y: functional.nll_loss(torch.cat([1 - p, p], 1).log(), y),
    ),
}  # fmt: skip


def build(last: list[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    for layer in last:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4), *last)


def judge(net: nn.Module, batch: Any, loss: Loss) -> tuple[str, ...]:
    codes = ["OUT001", "OUT002", "OUT005", "LOS002"]
    return unvanish.check(net, batch, loss, confirm=False, select=codes).codes()


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_found(name: str) -> None:
    code, (last, y, loss) = WRONG[name]
    assert judge(build(last), (X, y), loss)[:1] == (code,)


@pytest.mark.parametrize("name", RIGHT)
def test_what_fits_is_left_alone(name: str) -> None:
    last, y, loss = RIGHT[name]
    assert judge(build(last), (X, y), loss) == ()


@pytest.mark.parametrize(
    ("last", "loss", "code"),
    [
        (nn.LogSoftmax(-1), listen(20), None),
        (nn.Softmax(-1), listen(20), "OUT002"),
        (nn.Identity(), listen(20), "OUT002"),
        (nn.LogSoftmax(0), listen(20), "OUT001"),
        (nn.LogSoftmax(-1), listen(3, zero_infinity=True), "OUT005"),
        (nn.LogSoftmax(-1), lambda o, y: 90 - listen(20)(o, y), "LOS002"),
    ],
)
def test_a_loss_over_alignments_is_read(last: nn.Module, loss: Loss, code: str | None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), last)
    assert judge(net, (SOUND, TEXT), loss) == (() if code is None else (code,))
