"""Activations by name, their Gaussian moments, and the critical initialisation that follows from them.

Notable: the moments come from a plain trapezoid rule over z ~ N(0, q), written for this benchmark alone, so
that a mistake in the theory under test cannot hide in the nets it is tested on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


class Gentle(nn.Module):
    """A quarter-slope tanh: a home-made activation no table lists."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(0.25 * z)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
    "softsign": nn.Softsign,
    "sigmoid": nn.Sigmoid,
    "hardsigmoid": nn.Hardsigmoid,
    "gentle": Gentle,
}
FUNCTIONS: dict[str, Function] = {
    "relu": torch.relu,
    "leaky": lambda z: nn.functional.leaky_relu(z, 0.1),
    "relu6": nn.functional.relu6,
    "elu": nn.functional.elu,
    "selu": torch.selu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "mish": nn.functional.mish,
    "tanh": torch.tanh,
    "hardtanh": nn.functional.hardtanh,
    "softsign": nn.functional.softsign,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": nn.functional.hardsigmoid,
    "gentle": lambda z: torch.tanh(0.25 * z),
}
RECTIFIERS = ("relu", "leaky")
CENTRED = ("tanh", "hardtanh", "softsign")
SMOOTH = ("gelu", "silu", "elu", "selu", "mish")
SQUASHING = ("tanh", "sigmoid", "hardtanh")
CONTRACTING = ("sigmoid", "hardsigmoid", "gentle")
LENGTHS = {
    "tanh": (0.1, 0.5, 1.0),
    "hardtanh": (0.2, 0.5),
    "softsign": (0.05,),
    "gelu": (8.0,),
    "silu": (16.0,),
}


@cache
def moments(name: str, q: float) -> tuple[float, float]:
    """<phi^2> and <phi'^2> over z ~ N(0, q)."""
    z = (torch.linspace(-10, 10, 20001, dtype=torch.float64) * math.sqrt(q)).requires_grad_()
    with torch.enable_grad():
        value = FUNCTIONS[name](z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    weight = torch.exp(-(z.detach() ** 2) / (2 * q))
    weight = weight / weight.sum()
    return float((value.detach() ** 2 * weight).sum()), float((slope**2 * weight).sum())


def critical(name: str, q: float) -> tuple[float, float]:
    """(sw, sb) with gain 1 backward and length q kept, or sb = 0 where the length cannot be kept."""
    forward, backward = moments(name, q)
    weight = 1 / backward
    return math.sqrt(weight), math.sqrt(max(0.0, q - weight * forward))


def lengths(name: str) -> tuple[float, ...]:
    """Lengths q at which the critical point of this activation is usable."""
    return LENGTHS.get(name, (1.0,))
