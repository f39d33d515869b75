"""Faults between the last layer and the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.twins import Twin, adam, sgd
from benchmarks.twins.deep import CE, mlp
from benchmarks.twins.tasks import BLOBS, TABLE, YES, Task

MSE, BCE = nn.MSELoss(), nn.BCEWithLogitsLoss()


def ends(sick: bool, *layers: nn.Module, loss: Any = CE, good: Any = None, leave: int = 4) -> Any:
    """A net with something behind its last layer, or without it."""
    body = mlp(nn.ReLU, 2, leave=leave)
    return (nn.Sequential(*body, *layers) if sick else body), (loss if sick or good is None else good)


def on_surface(sick: bool, last: nn.Module) -> Any:
    """A number beyond the range of the last function."""
    body = mlp(nn.ReLU, 2, enter=8, leave=1)
    return (nn.Sequential(*body, last) if sick else body), MSE


@torch.no_grad()
def sure(sick: bool, factor: float = 3000.0) -> Any:
    """An output layer that is far too sure."""
    net = mlp(nn.ReLU, 2)
    if sick:
        net[-1].weight.mul_(factor)
        net[-1].bias.mul_(factor)
    return net, CE


@torch.no_grad()
def sure_sigmoid(sick: bool) -> Any:
    """A sigmoid at its ends under binary cross-entropy of probabilities."""
    net = mlp(nn.ReLU, 2, leave=1)
    if sick:
        net[-1].bias.fill_(40.0)
    return nn.Sequential(*net, nn.Sigmoid()), nn.BCELoss()


def flipped(output: Tensor, y: Tensor) -> Tensor:
    """Ascent."""
    return -functional.cross_entropy(output, y)


def likelihood(output: Tensor, y: Tensor) -> Tensor:
    """The mean of what should be large."""
    return functional.log_softmax(output, 1)[torch.arange(len(y)), y].mean()


def own_focal(output: Tensor, y: Tensor) -> Tensor:
    """A logarithm of a softmax, by hand, of probabilities."""
    return -torch.log(functional.softmax(output, 1)[torch.arange(len(y)), y] + 1e-9).mean()


def _twin(name: str, kind: str, build: Any, task: Task = BLOBS, optimizer: Any = None, **more: Any) -> Twin:
    return Twin(name, kind, build, task, optimizer or adam(), **more)


FLAT = YES.change(lambda x, y: (x, y))
COLUMN = TABLE.change(lambda x, y: (x, y.squeeze(1)))
SHAPED = TABLE.change(lambda x, y: (x, 20 * y + 30))

TWINS = (
    _twin(
        "softmax-cross-entropy",
        "double softmax",
        lambda s: ends(s, nn.Softmax(-1)),
        optimizer=sgd(0.01),
        steps=60,
    ),
    _twin(
        "softmax-by-hand",
        "double softmax",
        lambda s: ends(s, nn.Softmax(-1), loss=own_focal, good=own_focal),
        optimizer=sgd(0.01),
        steps=60,
    ),
    _twin(
        "sigmoid-cross-entropy",
        "double softmax",
        lambda s: ends(s, nn.Sigmoid()),
        optimizer=sgd(0.01),
        steps=60,
        given=True,
    ),
    _twin(
        "sigmoid-bce-logits",
        "double softmax",
        lambda s: ends(s, nn.Sigmoid(), loss=BCE, leave=1),
        YES,
        sgd(0.01),
        steps=60,
    ),
    _twin("nll-of-logits", "log missing", lambda s: ends(s, loss=nn.NLLLoss(), good=CE)),
    _twin(
        "nll-of-softmax",
        "log missing",
        lambda s: ends(s, nn.Softmax(-1), loss=nn.NLLLoss(), good=CE),
        optimizer=sgd(0.01),
        steps=60,
    ),
    _twin(
        "broadcast",
        "broadcast loss",
        lambda s: (
            mlp(nn.ReLU, 2, enter=8, leave=1)
            if s
            else nn.Sequential(*mlp(nn.ReLU, 2, enter=8, leave=1), nn.Flatten(0)),
            MSE,
        ),
        COLUMN,
    ),
    _twin("flipped", "flipped sign", lambda s: (mlp(nn.ReLU, 2), flipped if s else CE)),
    _twin("likelihood", "flipped sign", lambda s: (mlp(nn.ReLU, 2), likelihood if s else CE), given=True),
    _twin("relu-logits", "output function", lambda s: dead_end(s)),
    _twin("tanh-logits", "output function", lambda s: ends(s, nn.Tanh()), optimizer=sgd(0.01), steps=60),
    _twin("sigmoid-number", "output function", lambda s: on_surface(s, nn.Sigmoid()), TABLE),
    _twin("relu-number", "output function", lambda s: on_surface(s, nn.ReLU()), TABLE, given=True),
    _twin("softmax-of-one", "output function", lambda s: one_unit(s), YES),
    _twin("sure", "saturated output", sure, steps=60),
    _twin("sure-sigmoid", "saturated output", sure_sigmoid, YES),
    _twin("softmax-axis", "softmax axis", lambda s: ends(s, nn.Softmax(0)), curable=False),
    _twin("argmax-out", "cut", lambda s: hard_number(s), YES),
)


@torch.no_grad()
def dead_end(sick: bool) -> Any:
    """A ReLU behind the output layer, off for every class."""
    body = mlp(nn.ReLU, 2)
    body[-1].bias.fill_(-3.0)
    return (nn.Sequential(*body, nn.ReLU()) if sick else body), CE


def one_unit(sick: bool) -> Any:
    """A softmax over one unit is always one."""
    return nn.Sequential(*mlp(nn.ReLU, 2, leave=1), nn.Softmax(-1) if sick else nn.Sigmoid()), nn.BCELoss()


class Rounds(nn.Module):
    """Answers rounded to 0 or 1 before the loss."""

    def __init__(self, sick: bool) -> None:
        super().__init__()
        self.body, self.sick = mlp(nn.ReLU, 2, leave=1), sick

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(self.body(x))
        return torch.round(p) if self.sick else p


def hard_number(sick: bool) -> Any:
    """Squared error of rounded answers."""
    return Rounds(sick), MSE
