"""What a loss asks for beyond its targets: weights of classes and smoothed labels, slips and usual ones."""

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
RARE = torch.where(torch.arange(N) % 16 < 15, 0, 1)
YES = (torch.arange(N) % 2).float()[:, None]
SELDOM = (torch.arange(N) % 16 == 0).float()[:, None]
SHARES = torch.bincount(CLASSES, minlength=4) / N
OFTEN = torch.tensor(15.0)
IMAGES, MAPS = torch.rand(4, 1, 8, 8, generator=GENERATOR), torch.arange(256).view(4, 8, 8) % 4
Loss = Callable[[Tensor, Tensor], Tensor]


def weigh(*weights: float, **how: Any) -> Loss:
    return nn.CrossEntropyLoss(weight=torch.tensor([float(w) for w in weights]), **how)


def smooth(epsilon: float) -> Loss:
    """Label smoothing as it is written by hand."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        asked = torch.full_like(z, epsilon / (z.shape[1] - 1)).scatter_(1, y[:, None], 1 - epsilon)
        return (-asked * functional.log_softmax(z, 1)).sum(1).mean()

    return loss


def mix(sure: float) -> Loss:
    """Label smoothing as the likelihood beside the mean of all logarithms."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        log = z.log_softmax(-1)
        return (-sure * log.gather(-1, y[:, None])[:, 0] - (1 - sure) * log.mean(-1)).mean()

    return loss


def smooth_maps(z: Tensor, y: Tensor) -> Tensor:
    one = functional.one_hot(y, 4).movedim(-1, 1).float()
    return -((0.04 * one + 0.32 * (1 - one)) * z.log_softmax(1)).sum(1).mean()


def squeeze(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z, 0.1 * y + 0.45)


def turn(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z, y, weight=torch.where(y > 0.5, -1.0, 1.0))


SICK: dict[str, tuple[str, int, Tensor, Loss]] = {
    "one weight negative": ("LOS002", 4, CLASSES, weigh(1, 1, -1, 1)),
    "all negative, summed": ("LOS002", 4, CLASSES, weigh(-1, -2, -1, -1, reduction="sum")),
    "logarithms of frequencies": ("LOS002", 4, CLASSES, nn.CrossEntropyLoss(SHARES.log(), reduction="sum")),
    "pos_weight negative": ("LOS002", 1, YES, nn.BCEWithLogitsLoss(pos_weight=torch.tensor([-2.0]))),
    "weights of samples negative": ("LOS002", 1, YES, turn),
    "a class of the middle at zero": ("LOS001", 4, CLASSES, weigh(1, 0, 1, 1)),
    "all but one at zero": ("LOS001", 4, CLASSES, weigh(0, 0, 0, 1)),
    "pos_weight zero": ("LOS001", 1, YES, nn.BCEWithLogitsLoss(pos_weight=torch.zeros(1))),
    "frequencies for their inverse": ("LOS001", 4, RARE, weigh(0.94, 0.06, 1, 1)),
    "pos_weight inverted": ("LOS001", 1, SELDOM, nn.BCEWithLogitsLoss(pos_weight=torch.tensor([4 / 60]))),
    "pos_weight of a frequent yes": ("LOS001", 1, 1 - SELDOM, nn.BCEWithLogitsLoss(pos_weight=OFTEN)),
    "smoothed by 0.95": ("OUT006", 4, CLASSES, nn.CrossEntropyLoss(label_smoothing=0.95)),
    "smoothed wholly": ("OUT006", 4, CLASSES, nn.CrossEntropyLoss(label_smoothing=1.0)),
    "confidence for smoothing": ("OUT006", 4, CLASSES, mix(0.1)),
    "yes and no squeezed": ("OUT006", 1, YES, squeeze),
    "smoothed beyond all": ("LOS002", 4, CLASSES, smooth(0.9)),
}  # fmt: skip
FINE: dict[str, tuple[int, Tensor, Loss]] = {
    "inverse frequencies": (4, RARE, weigh(0.06, 0.94, 1, 1)),
    "all negative, averaged, which divides by them": (4, CLASSES, weigh(-1, -2, -1, -1)),
    "a weight of zero for a class that is absent": (4, CLASSES.clamp(1), weigh(0, 1, 1, 1)),
    "background left out": (4, CLASSES, weigh(0, 1, 1, 1)),
    "void left out": (4, CLASSES, weigh(1, 1, 1, 0)),
    "no object weighs less": (4, torch.where(torch.arange(N) % 8 > 0, 3, CLASSES), weigh(1, 1, 1, 0.1)),
    "pos_weight": (1, SELDOM, nn.BCEWithLogitsLoss(pos_weight=torch.tensor([15.0]))),
    "pos_weight, mild": (1, YES, nn.BCEWithLogitsLoss(pos_weight=torch.tensor([0.5]))),
    "smoothed by 0.1": (4, CLASSES, nn.CrossEntropyLoss(label_smoothing=0.1)),
    "smoothed by 0.5": (4, CLASSES, nn.CrossEntropyLoss(label_smoothing=0.5)),
    "smoothed by hand": (4, CLASSES, smooth(0.1)),
    "confidence": (4, CLASSES, mix(0.9)),
    "yes and no smoothed": (1, YES, lambda z, y: nn.BCEWithLogitsLoss()(z, 0.9 * y + 0.05)),
    "a policy": (4, CLASSES, lambda z, y: -(z.log_softmax(1).gather(1, y[:, None])[:, 0] * X[:, 0]).mean()),
}


def judge(net: nn.Module, batch: Any, loss: Loss) -> tuple[str, ...]:
    codes = ["LOS001", "LOS002", "OUT005", "OUT006"]
    return unvanish.check(net, batch, loss, confirm=False, select=codes).codes()


def build(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, width))


@pytest.mark.parametrize("name", SICK)
def test_a_slip_is_found(name: str) -> None:
    code, width, y, loss = SICK[name]
    assert judge(build(width), (X, y), loss) == (code,)


@pytest.mark.parametrize("name", FINE)
def test_what_is_usual_is_left_alone(name: str) -> None:
    width, y, loss = FINE[name]
    assert judge(build(width), (X, y), loss) == ()


def test_maps_of_labels_are_read_too() -> None:
    torch.manual_seed(0)
    assert judge(nn.Conv2d(1, 4, 3, padding=1), (IMAGES, MAPS), smooth_maps) == ("LOS002",)
    assert judge(nn.Conv2d(1, 4, 3, padding=1), (IMAGES, MAPS), weigh(1, 0, 1, 1)) == ("LOS001",)


def test_the_classes_and_the_share_are_named() -> None:
    found = unvanish.check(build(4), (X, CLASSES), weigh(1, 1, -1, 1), confirm=False).findings[0]
    assert "class 2" in found.cause and "25%" in found.cause
    edge = unvanish.check(build(4), (X, CLASSES), weigh(0, 1, 1, 1), confirm=False, select=["LOS001"])
    assert [(f.code, f.severity) for f in edge.findings] == [("LOS001", "note")]


COUNTS = torch.bincount(CLASSES_OF_RARE := torch.where(torch.arange(N) % 16 < 13, 0, 1)) / N


def weigh_by_hand(table: Tensor) -> Loss:
    return lambda z, y: (table[y] * functional.cross_entropy(z, y, reduction="none")).mean()


def focus_by_hand(table: Tensor) -> Loss:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        log = z.log_softmax(1).gather(1, y[:, None]).squeeze(1)
        return (-table[y] * (1 - log.exp()) ** 2 * log).mean()

    return loss


@pytest.mark.parametrize("form", [weigh_by_hand, focus_by_hand])
def test_weights_by_hand_that_favour_the_frequent_class(form: Callable[[Tensor], Loss]) -> None:
    batch = X, CLASSES_OF_RARE
    assert judge(build(2), batch, form(COUNTS)) == ("LOS001",)
    assert judge(build(2), batch, form(1 / COUNTS)) == ()
    assert judge(build(2), batch, form(torch.tensor([0.25, 0.75]))) == ()
