"""Classifiers of small pictures: layers of all kinds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.trainings.basis import (
    PLANS,
    Learned,
    Open,
    fit,
    flat_mlp,
    pick_digits,
    score,
    training,
    warm_up,
)


@training
def plain_mlp(watching: Open) -> Learned:
    net = flat_mlp(64, 64, 64, 10)
    fit(watching, net, torch.optim.Adam(net.parameters(), 1e-3), pick_digits(1400))
    return score(net)


@training
def mlp_with_dropout(watching: Open) -> Learned:
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 128), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip
    fit(watching, net, torch.optim.AdamW(net.parameters(), 1e-3), pick_digits(1800))
    return score(net)


@training
def mlp_with_batch_norm(watching: Open) -> Learned:
    net = flat_mlp(64, 64, 64, 10, norm=nn.BatchNorm1d)
    fit(watching, net, torch.optim.RMSprop(net.parameters(), 1e-3), pick_digits(1200))
    return score(net)


@training
def deep_rectifiers(watching: Open) -> Learned:
    net = flat_mlp(64, *[48] * 10, 10)
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    fit(watching, net, torch.optim.Adam(net.parameters(), 1e-3), pick_digits(1400))
    return score(net, 0.8)


@training
def self_normalising(watching: Open) -> Learned:
    net = flat_mlp(64, *[48] * 8, 10, act=nn.SELU)
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)
    fit(watching, net, torch.optim.SGD(net.parameters(), 0.02, momentum=0.9), pick_digits(1400))
    return score(net)


@training
def hyperbolic_tangents(watching: Open) -> Learned:
    net = flat_mlp(64, 48, 48, 48, 10, act=nn.Tanh)
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
    fit(watching, net, torch.optim.SGD(net.parameters(), 0.1), pick_digits(1400))
    return score(net)


@training
def maxout_with_weight_norm(watching: Open) -> Learned:
    class Maxout(nn.Module):
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.lin = nn.utils.parametrizations.weight_norm(nn.Linear(a, 2 * b))

        def forward(self, x: Tensor) -> Tensor:
            return self.lin(x).unflatten(1, (-1, 2)).amax(2)

    net = nn.Sequential(nn.Flatten(), Maxout(64, 48), Maxout(48, 48), nn.Linear(48, 10))
    fit(watching, net, torch.optim.Adam(net.parameters(), 2e-3), pick_digits(1200))
    return score(net)


def conv(a: int, b: int, **options: Any) -> nn.Sequential:
    """Convolution, normalisation, rectifier."""
    return nn.Sequential(
        nn.Conv2d(a, b, 3, padding=1, bias=False, **options), nn.BatchNorm2d(b), nn.ReLU(inplace=True)
    )


@training
def plain_convolutions(watching: Open) -> Learned:
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    fit(watching, net, torch.optim.Adam(net.parameters(), 2e-3), pick_digits(800))
    return score(net)


@training
def convolutions_with_norm(watching: Open) -> Learned:
    net = nn.Sequential(
        conv(1, 16), conv(16, 16), nn.MaxPool2d(2), conv(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    fit(watching, net, optimizer, pick_digits(600), plan=PLANS.CosineAnnealingLR(optimizer, 600))
    return score(net)


class Basic(nn.Module):
    """A block of a ResNet; `zero`: its branch begins at zero."""

    def __init__(self, width: int, zero: bool = False, before: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.m, self.n, self.before = nn.BatchNorm2d(width), nn.BatchNorm2d(width), before
        if zero:
            nn.init.zeros_(self.b.weight if before else self.n.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            return x + self.b(F.relu(self.n(self.a(F.relu(self.m(x))))))
        return F.relu(x + self.n(self.b(F.relu(self.m(self.a(x))))))


@training
def residual_network(watching: Open) -> Learned:
    net = nn.Sequential(
        conv(1, 16), Basic(16), Basic(16), nn.MaxPool2d(2), Basic(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    plan = PLANS.MultiStepLR(optimizer, [300, 440], 0.1)
    fit(watching, net, optimizer, pick_digits(520), plan=plan)
    return score(net)


@training
def residual_network_from_zero_branches(watching: Open) -> Learned:
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), *(Basic(16, zero=True, before=True) for _ in range(4)),
        nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    fit(watching, net, optimizer, pick_digits(400), plan=warm_up(optimizer, 30, 400))
    return score(net)


@training
def depthwise_convolutions(watching: Open) -> Learned:
    def block(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width), nn.ReLU6(),
            nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU6(),
        )  # fmt: skip

    net = nn.Sequential(
        conv(1, 24), block(24), nn.MaxPool2d(2), block(24), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(24, 10),
    )  # fmt: skip
    optimizer = torch.optim.RMSprop(net.parameters(), 2e-3, momentum=0.5)
    fit(watching, net, optimizer, pick_digits(500), plan=PLANS.ExponentialLR(optimizer, 0.995))
    return score(net)


@training
def squeeze_and_excitation(watching: Open) -> Learned:
    class Squeeze(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv, self.gate = (
                conv(width, width),
                nn.Sequential(nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, width), nn.Sigmoid()),
            )

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return x + y * self.gate(y.mean((2, 3)))[..., None, None]

    net = nn.Sequential(
        conv(1, 16), Squeeze(16), nn.MaxPool2d(2), Squeeze(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    fit(watching, net, torch.optim.Adam(net.parameters(), 2e-3), pick_digits(500))
    return score(net)


class Patches(nn.Module):
    """A vision transformer over sixteen patches."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.cut = nn.Conv2d(1, width, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.1, "gelu", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cut(x).flatten(2).transpose(1, 2)  # (B, 16, D)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.norm(self.body(x)[:, 0]))


@training
def vision_transformer(watching: Open) -> Learned:
    net = Patches()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
    fit(watching, net, optimizer, pick_digits(600), plan=warm_up(optimizer, 40, 600), clip=1.0)
    return score(net, 0.65)


@training
def mixer(watching: Open) -> Learned:
    class Mix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m, self.n = nn.LayerNorm(32), nn.LayerNorm(32)
            self.over = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
            self.through = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.over(self.m(x).transpose(1, 2)).transpose(1, 2)
            return x + self.through(self.n(x))

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.body = nn.Conv2d(1, 32, 2, 2), nn.Sequential(Mix(), Mix())
            self.head = nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(self.cut(x).flatten(2).transpose(1, 2)).mean(1))

    net = Mixer()
    fit(watching, net, torch.optim.AdamW(net.parameters(), 2e-3), pick_digits(700))
    return score(net, 0.8)
