"""What random models are made of: blocks that turn one kind of representation into another, by name.

Kinds: "vec" (B, D), "seq" (B, T, D), "img" (B, D, 6, 6). A block is made for a width D, a multiple of 4.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Make = Callable[[int, random.Random], nn.Module]


@dataclass(frozen=True)
class Block:
    """A maker of modules from one kind of representation to another."""

    name: str
    source: str
    target: str
    make: Make
    weight: float = 1.0


BLOCKS: dict[str, Block] = {}


class Do(nn.Module):
    """A function of itself and its input, with children: `Do(lambda s, x: s.a(x), a=nn.Linear(4, 4))`."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def block(kinds: str, weight: float = 1.0) -> Callable[[Make], Make]:
    """Register a maker: "vec" or "seq>vec"; its name is the function's."""
    source, _, target = kinds.partition(">")

    def keep(make: Make) -> Make:
        name = make.__name__.strip("_")
        assert name not in BLOCKS, name
        BLOCKS[name] = Block(name, source, target or source, make, weight)
        return make

    return keep


def register(kinds: str, **makers: Make) -> None:
    """Register several makers of one kind by their names."""
    source, _, target = kinds.partition(">")
    for name, make in makers.items():
        assert name not in BLOCKS, name
        BLOCKS[name] = Block(name, source, target or source, make)
