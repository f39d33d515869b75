"""Tasks with samples without end, and how well an output solves them.

Notable: an error is 1 for the best answer that ignores the input and 0 for a perfect one, whatever the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Draw = Callable[[int, torch.Generator], tuple[Any, Tensor]]


@dataclass(frozen=True)
class Task:
    """Samples `draw(n, generator)`; `goal`: what the target is, "class", "yes" (0 or 1) or "number"."""

    draw: Draw
    goal: str = "class"

    def batch(self, size: int, seed: int) -> tuple[Any, Tensor]:
        """A batch of its own for each seed."""
        return self.draw(size, torch.Generator().manual_seed(1000 + seed))

    def error(self, output: Tensor, y: Tensor) -> float:
        """The share of what chance leaves that the output leaves too; at most 1."""
        if not bool(torch.isfinite(output).all()):
            return 1.0
        if self.goal == "number":
            output, y = output.double().reshape(len(y), -1), y.double().reshape(len(y), -1)
            return min(1.0, float(((output - y) ** 2).mean(0).div(y.var(0, correction=0)).mean()))
        if self.goal == "yes":
            output, truth = output.reshape(len(y)), y.reshape(len(y)) > 0.5
            said = output > (0.5 if float(output.min()) >= 0 and float(output.max()) <= 1 else 0.0)
            return min(1.0, float((said != truth).float().mean()) / 0.5)
        classes = output.shape[-1]
        return min(1.0, float((output.argmax(-1) != y).float().mean()) / (1 - 1 / classes))

    def change(self, change: Callable[[Any, Tensor], tuple[Any, Tensor]]) -> Task:
        """The same task in other units or shapes."""
        return Task(lambda n, g: change(*self.draw(n, g)), self.goal)


def fixed(*shape: int, seed: int = 7) -> Tensor:
    """Normal numbers that belong to a task."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _blobs(features: int, classes: int, centres: int) -> Draw:
    places = 1.2 * fixed(centres, features)

    def draw(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        which = torch.randint(0, centres, (n,), generator=g)
        return places[which] + 0.7 * torch.randn(n, features, generator=g), which % classes

    return draw


def _surface(features: int, columns: int) -> Draw:
    a, b = fixed(features, 6) / features**0.5, fixed(6, columns, seed=8)

    def draw(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, features, generator=g)
        return x, torch.tanh(1.5 * x @ a) @ b / 1.7

    return draw


def _pictures(classes: int, size: int, channels: int) -> Draw:
    shown = fixed(2 * classes, channels, size, size, seed=9)

    def draw(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        which = torch.randint(0, 2 * classes, (n,), generator=g)
        return 0.8 * shown[which] + 0.7 * torch.randn(n, channels, size, size, generator=g), which % classes

    return draw


def recall(steps: int, symbols: int = 4, noise: float = 0.1) -> Task:
    """One of a few symbols at the first step, then noise; which was it?"""

    def draw(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        y = torch.randint(0, symbols, (n,), generator=g)
        x = noise * torch.randn(n, steps, symbols, generator=g)
        x[torch.arange(n), 0, y] += 1.0
        return x, y

    return Task(draw)


def summing(steps: int) -> Task:
    """The sign of the sum of all steps' first channel."""

    def draw(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, steps, 4, generator=g)
        return x, (x[..., 0].sum(1) > 0).long()

    return Task(draw)


def majority(length: int = 9, symbols: int = 4) -> Task:
    """Which symbol comes most often."""

    def draw(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        y = torch.randint(0, symbols, (n,), generator=g)
        ids = torch.randint(0, symbols, (n, length), generator=g)
        ids = torch.where(torch.rand(n, length, generator=g) < 0.45, y[:, None], ids)
        return ids, ids.new_tensor([int(torch.bincount(row, minlength=symbols).argmax()) for row in ids])

    return Task(draw)


BLOBS = Task(_blobs(16, 4, 8))
TABLE = Task(_surface(8, 1), "number")
COLUMNS = Task(_surface(8, 3), "number")
PICTURES = Task(_pictures(4, 8, 1))
COLOURS = Task(_pictures(4, 8, 3))
YES = Task(lambda n, g: _halve(*BLOBS.draw(n, g)), "yes")


def _halve(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x, (y % 2).float()[:, None]
