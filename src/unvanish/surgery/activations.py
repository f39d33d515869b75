"""Activation functions by name: as a module, as a function, and replaced in a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from unvanish.core.registry import suggest
from unvanish.surgery.names import split_label
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.rewire import Calls, Rewire, plain
from unvanish.surgery.surgery import Surgery

MODULES: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish,
    "elu": nn.ELU, "selu": nn.SELU, "celu": nn.CELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus, "softsign": nn.Softsign, "hardtanh": nn.Hardtanh, "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid, "relu6": nn.ReLU6, "identity": nn.Identity,
}  # fmt: skip
OTHERS = ("logsigmoid", "tanhshrink", "softshrink", "hardshrink")  # functions that no cure puts in as modules
NAMES = {"logsigmoid": "log_sigmoid"}


def module(name: str, settings: Mapping[str, Any] | None = None) -> nn.Module:
    """A new module of an activation; SurgeryError with the nearest name if it is unknown."""
    if name not in MODULES:
        raise SurgeryError(f"no activation {name!r}{suggest(name, MODULES)}; there are {', '.join(MODULES)}")
    return MODULES[name](**(settings or {}))


class Instead:
    """Calls the function of `name` with `settings` in place of some calls of another."""

    def __init__(self, name: str, settings: Mapping[str, Any], chosen: Iterable[int] | None) -> None:
        self.name, self.settings = name, dict(settings)
        self.chosen = None if chosen is None else frozenset(chosen)

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.chosen is not None and index not in self.chosen:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        made = function(self.name)(x, **self.settings)
        # a step function saves nothing for its backward, so later code may write into its result; a tanh does
        return made.clone() if plain(func) in ("sign", "sgn", "heaviside") else made


def function(name: str) -> Callable[..., Any]:
    """The function of an activation's name."""
    if name in ("tanh", "sigmoid"):
        return getattr(torch, name)  # type: ignore[no-any-return]
    if name == "identity":
        return lambda x: x
    if name not in MODULES and name not in OTHERS:
        raise SurgeryError(f"no activation {name!r}{suggest(name, MODULES)}; there are {', '.join(MODULES)}")
    return getattr(functional, name)  # type: ignore[no-any-return]


def replace_calls(
    surgery: Surgery, targets: Iterable[str], name: str, settings: Mapping[str, Any] | None = None
) -> int:
    """Replace the activations at some sites, modules or functional calls, by the one called `name`.

    A target is a module's path, or the path of a module and the name of a function its forward calls:
    "blocks.0.tanh", "sigmoid[2]" for the third call. Returns the number of replacements.
    """
    settings = settings or {}
    scopes: dict[tuple[str, str], set[int]] = {}
    count = 0
    for target in dict.fromkeys(targets):
        path, index = split_label(target)
        if surgery.has(path) and path:
            found = surgery.module(path)
            if next(found.parameters(), None) is None or isinstance(found, nn.PReLU):
                surgery.swap(path, module(name, settings), f"{type(found).__name__} becomes {name}")
                count += 1
                continue
        parent, _, kind = path.rpartition(".")
        surgery.module(parent)
        scopes.setdefault((parent, kind), set()).add(index)
    for (parent, kind), indices in scopes.items():
        chosen = None if indices == set(range(len(indices))) else indices
        surgery.graft(
            parent,
            Rewire({kind: Instead(name, settings, chosen)}, own=True),
            f"calls of {kind} become {name}",
        )
        count += len(indices)
    return count
