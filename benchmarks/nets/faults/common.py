"""What the plants share: building two nets from the same random numbers, and changing one copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from benchmarks.nets.draw import Draw
from benchmarks.nets.health import RATIO
from benchmarks.nets.net import Net
from benchmarks.nets.reading import Reading

S = TypeVar("S")


def twins(draw: Draw, build: Callable[[S], Net], *shapes: S) -> list[Net]:
    """Nets of several shapes, each built from the same state of torch's generator."""
    seed, nets = draw.getrandbits(62), []
    for shape in shapes:
        torch.manual_seed(seed)
        nets.append(build(shape))
    return nets


def changed(net: Net, names: Sequence[str], change: Callable[[nn.Module], None], **facts: object) -> Net:
    """A deep copy of the net with a change made to the named modules."""
    model = copy.deepcopy(net.model)
    with torch.no_grad():
        for name in names:
            change(model.get_submodule(name))
    return net.but(model=model, facts=facts)


def replaced(net: Net, name: str, wrap: Callable[[nn.Module], nn.Module], **facts: object) -> Net:
    """A deep copy of the net with one module replaced by a wrapper around it."""
    model = copy.deepcopy(net.model)
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    inner = owner.get_submodule(leaf)
    if isinstance(owner, (nn.ModuleList, nn.Sequential)):
        owner[list(owner._modules).index(leaf)] = wrap(inner)
    else:
        setattr(owner, leaf, wrap(inner))
    return net.but(model=model, facts=facts)


def normal_biases(std: float) -> Callable[[nn.Module], None]:
    """Biases drawn from N(0, std^2)."""

    def change(module: nn.Module) -> None:
        assert isinstance(module.bias, Tensor)
        nn.init.normal_(module.bias, std=std)

    return change


def times(factor: float) -> Callable[[nn.Module], None]:
    """Weights multiplied by a factor."""

    def change(module: nn.Module) -> None:
        assert isinstance(module.weight, Tensor)
        module.weight.mul_(factor)

    return change


def untouched(net: Net, **facts: object) -> Net:
    """A deep copy of the net."""
    return changed(net, [], lambda module: None, **facts)


def some(draw: Draw, names: Sequence[str], least: int = 1) -> list[str]:
    """All names, one of them, or a run of them."""
    how = draw.pick("all", "run", "one")
    if how == "all" or len(names) <= least:
        return list(names)
    count = least if how == "one" else draw.randint(least, len(names))
    start = draw.randint(0, len(names) - count)
    return list(names[start : start + count])


def flat(reading: Reading) -> bool:
    """True where the gradient is kept along the depth."""
    return abs(reading.ratio) <= RATIO and reading.swing <= RATIO + 0.5


def unless(**failed: bool) -> str:
    """The name of the first condition that does not hold, or ""."""
    return next((name.replace("_", " ") for name, holds in failed.items() if not holds), "")
