"""Faults of the data's scale: inputs and targets in natural units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.twins import Twin, adam, sgd
from benchmarks.twins.deep import CE, conv, draw, mlp
from benchmarks.twins.tasks import BLOBS, COLOURS, COLUMNS, PICTURES, TABLE, Task, recall

MSE = nn.MSELoss()
SCALES = torch.tensor([1.0, 3e4, 1.0, 0.01, 40.0, 1.0, 500.0, 0.1])
OFFSETS = torch.tensor([0.0, 5e4, 0.0, 0.0, 50.0, 0.0, 0.0, 0.0])


class Scaled(nn.Module):
    """What the fixed side does with its input before its layers."""

    def __init__(self, body: nn.Module, centre: Any, scale: Any, bound: float = 0.0) -> None:
        super().__init__()
        self.body, self.bound = body, bound
        self.register_buffer("centre", torch.as_tensor(centre, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.centre) / self.scale
        out: Tensor = self.body(x.clamp(-self.bound, self.bound) if self.bound else x)
        return out


def scaled(sick: bool, body: nn.Module, centre: Any, scale: Any, loss: Any = CE, bound: float = 0.0) -> Any:
    """The body alone, or behind the right units."""
    return (body if sick else Scaled(body, centre, scale, bound)), loss


def _outliers(rate: float) -> Any:
    def change(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(int(1e6 * float(x.flatten()[0].abs())) % 2**31)
        far = torch.rand(x.shape, generator=generator) < rate
        far.view(-1)[3] = True
        return torch.where(far, 1e5 * torch.sign(x), x), y

    return change


class Offset(nn.Module):
    """(y - offset) / scale inside the loss, as the fixed side has it."""

    def __init__(self, mean: Any, std: Any) -> None:
        super().__init__()
        self.mean, self.std = torch.as_tensor(mean), torch.as_tensor(std)

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        return MSE(output, (y - self.mean) / self.std)


def targets(task: Task, mean: Any, std: Any, width: int = 1, act: Any = nn.Tanh) -> dict[str, Any]:
    """A task whose targets are in natural units, and both sides."""
    mean, std = torch.as_tensor(mean), torch.as_tensor(std)
    return {
        "build": lambda s: (mlp(act, 2, enter=8, leave=width), MSE if s else Offset(mean, std)),
        "task": task.change(lambda x, y: (x, y * std + mean)),
    }


def _twin(name: str, kind: str, build: Any, task: Task, optimizer: Any = None, **more: Any) -> Twin:
    return Twin(name, kind, build, task, optimizer or adam(), **more)


TWINS = (
    _twin(
        "uneven-table",
        "uneven features",
        lambda s: scaled(s, mlp(nn.ReLU, 2, enter=8, leave=1), OFFSETS, SCALES, MSE),
        TABLE.change(lambda x, y: (x * SCALES + OFFSETS, y)),
    ),
    _twin(
        "uneven-small",
        "uneven features",
        lambda s: scaled(s, mlp(nn.Tanh, 2, enter=8, leave=1), 0.0, SCALES / 1000, MSE),
        TABLE.change(lambda x, y: (x * SCALES / 1000, y)),
        given=True,
    ),
    _twin(
        "uneven-channels",
        "uneven features",
        lambda s: scaled(
            s, conv_colours(), torch.zeros(3, 1, 1), torch.tensor([1e-3, 1e3, 1e-3]).view(3, 1, 1)
        ),
        COLOURS.change(lambda x, y: (x * torch.tensor([1e-3, 1e3, 1e-3]).view(3, 1, 1), y)),
    ),
    _twin(
        "outliers-relu",
        "outliers",
        lambda s: scaled(s, mlp(nn.ReLU, 2), 0.0, 1.0, bound=5.0),
        BLOBS.change(_outliers(0.004)),
    ),
    _twin(
        "outliers-tanh",
        "outliers",
        lambda s: scaled(s, mlp(nn.Tanh, 3, enter=8, leave=1), 0.0, 1.0, MSE, 5.0),
        TABLE.change(_outliers(0.03)),
        given=True,
    ),
    _twin(
        "raw-pixels",
        "unnormalised input",
        lambda s: scaled(s, nn.Sequential(nn.Flatten(), mlp(nn.Tanh, 3, enter=64)), 127.5, 60.0),
        PICTURES.change(lambda x, y: ((127.5 + 60 * x).clamp(0, 255).round(), y)),
        sgd(0.05),
    ),
    _twin(
        "raw-pixels-conv",
        "unnormalised input",
        lambda s: scaled(s, draw(conv(nn.Tanh, 3), 1.1), 127.5, 60.0),
        PICTURES.change(lambda x, y: ((127.5 + 60 * x).clamp(0, 255).round(), y)),
        sgd(0.05),
    ),
    _twin(
        "years",
        "unnormalised input",
        lambda s: scaled(s, mlp(nn.ReLU, 2), 1990.0, 12.0),
        BLOBS.change(lambda x, y: (1990 + 12 * x, y)),
        sgd(0.01),
        given=True,
    ),
    _twin(
        "divided-twice",
        "unnormalised input",
        lambda s: scaled(s, mlp(nn.ReLU, 2), 0.0, 1 / 255**2),
        BLOBS.change(lambda x, y: (x / 255**2, y)),
    ),
    _twin(
        "prices-gru",
        "unnormalised input",
        lambda s: scaled(s, Reader(), 30000.0, 3000.0),
        recall(8).change(lambda x, y: (30000 + 3000 * x, y)),
    ),
    _twin("targets-1e5", "target scale", **targets(TABLE, 2e5, 8e4)),
    _twin("targets-offset", "target scale", **targets(TABLE, 5000.0, 20.0, act=nn.ReLU), given=True),
    _twin(
        "targets-columns",
        "target scale",
        **targets(COLUMNS, torch.tensor([0.0, 1e4, 0.0]), torch.tensor([1.0, 2e3, 300.0]), 3),
    ),
)


def conv_colours() -> nn.Module:
    """Three channels, two convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 4),
    )  # fmt: skip


class Reader(nn.Module):
    """A GRU read at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.core, self.head = nn.GRU(4, 24, batch_first=True), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.core(x)[0][:, -1])
        return out
