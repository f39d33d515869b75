"""Activation functions by name, as modules: relu, leaky_relu, gelu, silu, tanh, sigmoid and others.

Notable: nearly every name that the theory knows is a module here, so `init: critical` covers them.

References: Nair and Hinton 2010 (ReLU); Maas et al. 2013 (leaky ReLU); Hendrycks and Gimpel 2016 (GELU,
SiLU); Clevert et al. 2016 (ELU); Klambauer et al. 2017 (SELU); Misra 2019 (Mish); Howard et al. 2019 (hard
swish).
"""

from __future__ import annotations

import re

from torch import nn

from unvanish.core.registry import suggest

MODULES: dict[str, type[nn.Module]] = {
    "celu": nn.CELU, "elu": nn.ELU, "gelu": nn.GELU, "hardsigmoid": nn.Hardsigmoid, "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh, "identity": nn.Identity, "leaky_relu": nn.LeakyReLU, "logsigmoid": nn.LogSigmoid,
    "mish": nn.Mish, "prelu": nn.PReLU, "relu": nn.ReLU, "relu6": nn.ReLU6, "selu": nn.SELU,
    "sigmoid": nn.Sigmoid, "silu": nn.SiLU, "softplus": nn.Softplus, "softsign": nn.Softsign, "tanh": nn.Tanh,
    "tanhshrink": nn.Tanhshrink,
}  # fmt: skip
ALIASES = {
    "swish": "silu", "leakyrelu": "leaky_relu", "lrelu": "leaky_relu", "none": "identity",
    "linear": "identity",
    "hard_swish": "hardswish", "hard_sigmoid": "hardsigmoid",
}  # fmt: skip


def plain_name(name: str) -> str:
    """The name in this table: `nn.LeakyReLU()`, `Leaky-ReLU` and `lrelu` are all leaky_relu.

    ValueError, with the nearest name, if it is unknown.
    """
    bare = re.sub(r"^(torch\.)?nn\.(\w+?)(\(\))?$", r"\2", name.strip())
    key = bare.lower().replace("-", "_")
    key = ALIASES.get(key, key)
    if key not in MODULES:
        listed = ", ".join(MODULES)
        raise ValueError(f"no activation {name!r}{suggest(name, [*MODULES, *ALIASES])}; there are {listed}")
    return key


def activation(name: str) -> nn.Module:
    """A new module of the activation function called `name`."""
    return MODULES[plain_name(name)]()
