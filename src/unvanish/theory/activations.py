"""Activation functions as curves: value and slope of any callable or known name.

Notable: the slope comes from autograd in float64, so the theory covers everything that torch can
differentiate; torch is imported when the first curve is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from unvanish.core.registry import suggest
from unvanish.theory.quadrature import Array

NAMES = (
    "celu", "elu", "erf", "gelu", "hardsigmoid", "hardswish", "hardtanh", "identity", "leaky_relu", "linear",
    "logsigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh",
    "tanhshrink",
)  # fmt: skip
ALIASES = {
    "swish": "silu", "leakyrelu": "leaky_relu", "lrelu": "leaky_relu", "none": "identity",
    "linear": "identity", "log_sigmoid": "logsigmoid", "prelu": "leaky_relu", "rrelu": "leaky_relu",
    "hard_swish": "hardswish",
}  # fmt: skip

FUNCTIONS = (  # elementwise functions of torch that are no activations
    "abs", "arctan", "atan", "clamp", "clamp_max", "clamp_min", "cos", "cosh", "erfc", "exp", "exp2", "expm1",
    "log", "log1p", "pow", "reciprocal", "rsqrt", "sin", "sinc", "sinh", "sqrt", "square",
)  # fmt: skip
SMOOTH = {*FUNCTIONS} - {"clamp", "clamp_max", "clamp_min"}


@dataclass(frozen=True)
class Curve:
    """An activation function phi: `value` and `slope` map float64 arrays to arrays of the same shape."""

    name: str
    function: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def value(self, z: Array) -> Array:
        """phi(z)."""
        return self._read(z)[0]

    def slope(self, z: Array) -> Array:
        """phi'(z); at a kink, autograd's choice."""
        return self._read(z)[1]

    def _read(self, z: Array) -> tuple[Array, Array]:
        import torch

        x = torch.from_numpy(np.array(z, dtype=np.float64)).requires_grad_()
        with torch.enable_grad():
            y = self.function(x, **self.settings)
            if y.shape != x.shape:
                raise ValueError(
                    f"{self.name} maps {tuple(x.shape)} to {tuple(y.shape)}: it is not elementwise"
                )
            (slope,) = torch.autograd.grad(y.sum(), x) if y.requires_grad else (torch.zeros_like(x),)
        return y.detach().double().numpy(), slope.detach().numpy()

    @cached_property
    def kinks(self) -> tuple[float, ...]:
        """The points in [-20, 20], except 0, at which the slope jumps; to an accuracy of 1e-12."""
        if self.name in SMOOTH or self.name == "composed":  # and steep
            return ()
        grid = np.linspace(-20, 20, 8001)
        slope = self.slope(grid + 1.7e-3)
        found = []
        for place in np.flatnonzero(np.abs(np.diff(slope)) > 0.02):
            low, high = grid[place] + 1.7e-3, grid[place + 1] + 1.7e-3
            first, last = slope[place], slope[place + 1]
            for _ in range(40):
                middle = (low + high) / 2
                at = float(self.slope(np.array([middle]))[0])
                low, high = (middle, high) if abs(at - first) < abs(at - last) else (low, middle)
            side = self.slope(np.array([low - 1e-9, high + 1e-9]))
            if abs(side[1] - side[0]) > 0.01 and abs(low) > 1e-9:  # a jump, not a steep stretch
                found.append(float((low + high) / 2))
        return tuple(found)

    @property
    def homogeneous(self) -> bool:
        """Whether phi(s z) = s phi(z) for s > 0: the length then has no scale of its own."""
        z = np.array([-2.0, -0.5, 0.5, 2.0])
        return bool(np.allclose(self.value(3 * z), 3 * self.value(z), rtol=1e-9, atol=1e-12))


def curve(activation: str | Callable[..., Any] | Curve, **settings: Any) -> Curve:
    """The curve of a name ("tanh", "leaky_relu", negative_slope=.2), of a callable, or of an `nn.Module`.

    ValueError if the name (the nearest is suggested) or a setting is unknown.
    """
    if isinstance(activation, Curve):
        return activation
    if callable(activation):
        name = getattr(activation, "__name__", type(activation).__name__)
        return Curve(name.lower(), _double(activation), settings)
    return _by_name(activation, tuple(sorted(settings.items())))


@lru_cache(maxsize=256)
def _by_name(name: str, settings: tuple[tuple[str, Any], ...]) -> Curve:
    import torch
    from torch.nn import functional

    key = name.lower().replace("-", "_")
    key = ALIASES.get(key, key)
    if key in FUNCTIONS:
        return Curve(key, getattr(torch, key), dict(settings))
    if key not in NAMES:
        raise ValueError(f"no activation {name!r}{suggest(name, [*NAMES, *ALIASES])}")
    special: dict[str, Callable[..., Any]] = {
        "identity": lambda x: x * 1.0,
        "erf": torch.erf,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }
    function = special.get(key) or getattr(functional, key)
    given = dict(settings)
    known = _parameters(function)
    for setting in given:
        if setting not in known:
            raise ValueError(f"{key} has no setting {setting!r}{suggest(setting, known)}")
    return Curve(key, function, given)


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)[1:]
    except ValueError:  # a builtin
        return ["approximate"] if function.__name__ == "gelu" else ["beta", "threshold"]


def _double(function: Callable[..., Any]) -> Callable[..., Any]:
    """The callable in float64; an `nn.Module` is copied."""
    import copy

    from torch import nn

    return copy.deepcopy(function).double() if isinstance(function, nn.Module) else function
