"""Faults of depth: activations, initialisations, norms, skips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.twins import Twin, adam, sgd
from benchmarks.twins.tasks import BLOBS, PICTURES

CE = nn.CrossEntropyLoss()
Act = Callable[[], nn.Module]


def mlp(act: Act, layers: int, width: int = 32, enter: int = 16, leave: int = 4) -> nn.Sequential:
    """Linear layers, each but the last with an activation behind it."""
    parts: list[nn.Module] = [nn.Linear(enter, width), act()]
    for _ in range(layers - 1):
        parts += [nn.Linear(width, width), act()]
    return nn.Sequential(*parts, nn.Linear(width, leave))


@torch.no_grad()
def draw(net: nn.Module, gain: float, bias: float = 0.0, scheme: str = "") -> nn.Module:
    """Weights of variance gain^2 / fan-in; `scheme` "constant": all the same."""
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d)):
            if scheme == "constant":
                m.weight.fill_(gain)
            else:
                m.weight.normal_(0, gain / m.weight[0].numel() ** 0.5)
            if m.bias is not None:
                m.bias.fill_(bias)
    return net


class Functional(nn.Module):
    """Layers in a list, the activation a function call."""

    def __init__(self, act: Any, layers: int, width: int = 32) -> None:
        super().__init__()
        self.act, self.enter = act, nn.Linear(16, width)
        self.layers, self.head = (
            nn.ModuleList(nn.Linear(width, width) for _ in range(layers)),
            nn.Linear(width, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.enter(x))
        for layer in self.layers:
            h = self.act(layer(h))
        out: Tensor = self.head(h)
        return out


class Blocks(nn.Module):
    """x + gain * f(x) without a normalisation."""

    def __init__(self, blocks: int, gain: float, width: int = 32) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(16, width), nn.Linear(width, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        draw(self.blocks, 2**0.5)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for block in self.blocks:
            h = h + self.gain * block(h)
        out: Tensor = self.head(h)
        return out


def conv(act: Act, layers: int, norm: bool = False, width: int = 12) -> nn.Sequential:
    """Convolutions of one width over 8 x 8 pictures."""
    parts: list[nn.Module] = []
    for k in range(layers):
        parts.append(nn.Conv2d(width if k else 1, width, 3, padding=1))
        parts += [nn.BatchNorm2d(width)] if norm else []
        parts.append(act())
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 4))


def he(net: nn.Module, gain: float = 2**0.5) -> tuple[nn.Module, Any]:
    """Drawn well, with cross-entropy."""
    return draw(net, gain), CE


@torch.no_grad()
def one_layer(sick: bool, factor: float, act: Act = nn.Tanh) -> tuple[nn.Module, Any]:
    """One layer in the middle is of another size."""
    net = draw(mlp(act, 6), 1.4 if act is nn.ReLU else 1.1)
    if sick:
        net[4].weight.mul_(factor)
    return net, CE


@torch.no_grad()
def biased(sick: bool, places: tuple[int, ...], bias: float) -> tuple[nn.Module, Any]:
    """ReLU layers whose biases keep all units off."""
    net = draw(mlp(nn.ReLU, 4), 2**0.5)
    for k in places if sick else ():
        net[k].bias.fill_(bias)
    return net, CE


@torch.no_grad()
def negative(sick: bool) -> tuple[nn.Module, Any]:
    """Weights that are negative behind a ReLU keep the units off."""
    net = draw(mlp(nn.ReLU, 4), 2**0.5)
    if sick:
        net[2].weight.abs_().neg_()
        net[2].bias.fill_(-0.1)
    return net, CE


@torch.no_grad()
def shifted_tanh(sick: bool) -> tuple[nn.Module, Any]:
    """Tanh layers saturated by their biases."""
    net = draw(mlp(nn.Tanh, 5), 1.1)
    for k in (0, 2, 4) if sick else ():
        net[k].bias.fill_(8.0)
    return net, CE


@torch.no_grad()
def two_zeros(sick: bool) -> tuple[nn.Module, Any]:
    """Two layers in series at zero: neither gets a gradient."""
    net = draw(mlp(nn.ReLU, 3), 2**0.5)
    for k in (2, 4) if sick else ():
        net[k].weight.zero_()
        net[k].bias.zero_()
    return net, CE


def no_skips(sick: bool) -> tuple[nn.Module, Any]:
    """Batch normalisation in a deep stack, skips left out."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Linear(16, 32), nn.Linear(32, 4)
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU()) for _ in range(40)
            )

        def forward(self, x: Tensor) -> Tensor:
            h = self.enter(x)
            for block in self.blocks:
                h = block(h) if sick else h + block(h) / 40**0.5
            out: Tensor = self.head(h)
            return out

    return Net(), CE


def _twin(name: str, kind: str, build: Any, task: Any = BLOBS, optimizer: Any = None, **more: Any) -> Twin:
    return Twin(name, kind, build, task, optimizer or adam(), **more)


TWINS = (
    _twin("sigmoid-12", "activation", lambda s: (mlp(nn.Sigmoid, 12), CE) if s else he(mlp(nn.ReLU, 12))),
    _twin(
        "sigmoid-20-calls",
        "activation",
        lambda s: (Functional(torch.sigmoid, 20), CE) if s else he(Functional(torch.relu, 20)),
        given=True,
    ),
    _twin(
        "sigmoid-conv",
        "activation",
        lambda s: (conv(nn.Sigmoid, 8), CE) if s else he(conv(nn.ReLU, 8)),
        PICTURES,
        steps=200,
    ),
    _twin("tanh-small", "init", lambda s: he(mlp(nn.Tanh, 10), 0.2 if s else 1.1), given=True),
    _twin("tanh-large", "init", lambda s: he(mlp(nn.Tanh, 10), 6.0 if s else 1.1)),
    _twin(
        "relu-default-30",
        "init",
        lambda s: (mlp(nn.ReLU, 30), CE) if s else he(mlp(nn.ReLU, 30)),
        optimizer=adam(1e-3),
    ),
    _twin("relu-large", "init", lambda s: he(mlp(nn.ReLU, 12), 4.0 if s else 2**0.5), optimizer=sgd(0.01)),
    _twin(
        "gelu-default-30",
        "init",
        lambda s: (mlp(nn.GELU, 30), CE) if s else he(mlp(nn.GELU, 30), 1.5),
        optimizer=adam(1e-3),
    ),
    _twin(
        "elu-default-30",
        "init",
        lambda s: (mlp(nn.ELU, 30), CE) if s else he(mlp(nn.ELU, 30), 1.23),
        optimizer=adam(1e-3),
    ),
    _twin(
        "constant",
        "init",
        lambda s: (draw(mlp(nn.ReLU, 3), 0.1 if s else 1.4, scheme="constant" if s else ""), CE),
    ),
    _twin("all-zero", "init", lambda s: he(mlp(nn.ReLU, 3), 0.0 if s else 1.4)),
    _twin("two-zeros", "init", two_zeros),
    _twin("one-layer-tiny", "init", lambda s: one_layer(s, 1e-4), optimizer=sgd(0.05), given=True),
    _twin("one-layer-huge", "init", lambda s: one_layer(s, 300.0), optimizer=sgd(0.05)),
    _twin("hardtanh-large", "init", lambda s: he(mlp(nn.Hardtanh, 8), 12.0 if s else 1.0)),
    _twin("dead-bias", "dead units", lambda s: biased(s, (0, 2), -20.0)),
    _twin("dead-bias-one", "dead units", lambda s: biased(s, (4,), -30.0), given=True),
    _twin("dead-negative", "dead units", negative),
    _twin("tanh-biased", "saturation", shifted_tanh),
    _twin(
        "conv-default-24",
        "norm missing",
        lambda s: (conv(nn.ReLU, 24, width=8), CE) if s else he(conv(nn.ReLU, 24, width=8)),
        PICTURES,
        steps=200,
    ),
    _twin(
        "conv-tanh-small",
        "norm missing",
        lambda s: he(conv(nn.Tanh, 10), 0.2 if s else 1.1),
        PICTURES,
        sgd(0.02),
        given=True,
        steps=150,
    ),
    _twin("batchnorm-40", "skips missing", no_skips, optimizer=adam(1e-3), steps=200),
    _twin(
        "blocks-30",
        "residual growth",
        lambda s: (Blocks(30, 1.0 if s else 30**-0.5), CE),
        optimizer=sgd(0.02),
    ),
)
