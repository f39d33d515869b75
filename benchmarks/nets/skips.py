"""Nets with skips: residual nets (post- and pre-activation, with or without normalisation) and U-Nets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.nets import activations
from benchmarks.nets.draw import Draw
from benchmarks.nets.losses import Task, draw_task
from benchmarks.nets.net import Net
from benchmarks.nets.plain import Pool, scale


@dataclass(frozen=True)
class ResNetShape:
    """A residual net; `order` is "v1" (activation after the sum) or "pre"; `branch` scales the branches."""

    blocks: int
    width: int
    activation: str
    task: Task
    image: int = 0  # 0: a residual MLP
    order: str = "pre"
    norm: str = "batch"
    branch: float = 1.0
    zero_last: bool = False
    learned_scale: bool = False
    batch: int = 16
    inputs: int = 16
    skip: bool = True

    def but(self, **changes: object) -> ResNetShape:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


class Block(nn.Module):
    """x + alpha * branch(x), then the activation, if one follows the sum."""

    def __init__(self, branch: nn.Module, after: nn.Module | None, learned: bool, skip: bool = True) -> None:
        super().__init__()
        self.branch, self.after, self.skip = branch, after, skip
        self.alpha = nn.Parameter(torch.zeros(())) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        change = self.branch(x)
        change = change if self.alpha is None else self.alpha * change
        total: Tensor = x + change if self.skip else change
        return total if self.after is None else self.after(total)


def draw_resnet(draw: Draw, blocks: int, task: Task | None = None, **fixed: object) -> ResNetShape:
    """A random residual net with this many blocks."""
    image = draw.pick(0, 0, 8)
    return ResNetShape(
        blocks,
        draw.log_integer(16, 48 if image else 128),
        draw.pick("relu", "relu", "gelu", "tanh", "silu"),
        task or draw_task(draw),
        image,
        draw.pick("v1", "pre"),
        draw.pick("batch", "layer"),
        batch=draw.randint(8, 16) if image else draw.randint(16, 64),
        inputs=3 if image else draw.randint(8, 64),
    ).but(**fixed)


def linear(shape: ResNetShape, fan_in: int) -> nn.Module:
    """A linear layer or a 3x3 convolution to the shape's width."""
    if shape.image:
        return nn.Conv2d(fan_in, shape.width, 3, padding=1, bias=not shape.norm)
    return nn.Linear(fan_in, shape.width, bias=not shape.norm)


def normalisation(shape: ResNetShape) -> nn.Module:
    """The shape's normalisation layer."""
    if shape.norm == "layer":
        return nn.GroupNorm(1, shape.width) if shape.image else nn.LayerNorm(shape.width)
    return nn.BatchNorm2d(shape.width) if shape.image else nn.BatchNorm1d(shape.width)


def branch(shape: ResNetShape) -> nn.Sequential:
    """Two layers with activations and norms in the shape's order, critical times `shape.branch`."""
    one, two = linear(shape, shape.width), linear(shape, shape.width)
    gain = activations.critical(shape.activation, 1.0)[0]
    for layer, factor in ((one, gain), (two, gain * shape.branch)):
        scale(layer, factor, "normal")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    if shape.zero_last:
        nn.init.zeros_(two.weight)  # type: ignore[arg-type]
    act = activations.MODULES[shape.activation]
    norms = [[normalisation(shape)] if shape.norm else [] for _ in range(2)]
    if shape.order == "pre":
        return nn.Sequential(*norms[0], act(), one, *norms[1], act(), two)
    return nn.Sequential(one, *norms[0], act(), two, *norms[1])


def resnet(shape: ResNetShape) -> Net:
    """The residual net of a shape; uses torch's global generator."""
    stem = linear(shape, shape.inputs)
    scale(stem, 1.0, "normal")
    model = nn.Sequential()
    model.add_module("stem", stem)
    if shape.norm and shape.order == "v1":
        model.add_module("stem_norm", normalisation(shape))
    names = []
    for index in range(shape.blocks):
        after = activations.MODULES[shape.activation]() if shape.order == "v1" else None
        names.append(f"block{index}")
        model.add_module(names[-1], Block(branch(shape), after, shape.learned_scale, shape.skip))
    if shape.norm and shape.order == "pre":
        model.add_module("last_norm", normalisation(shape))
    if shape.image:
        model.add_module("pool", Pool())
    head = nn.Linear(shape.width, shape.task.classes)
    nn.init.normal_(head.weight, std=1 / math.sqrt(shape.width))
    model.add_module("head", head)
    size = (shape.batch, shape.inputs, *((shape.image,) * 2 if shape.image else ()))
    return Net(
        "resnet",
        model,
        (torch.randn(size), shape.task.targets(shape.batch)),
        shape.task,
        stream=tuple(names),
        cut=tuple(names[:-1]) or ("stem",),
        head="head",
        facts={
            "depth": 2 * shape.blocks,
            "width": shape.width,
            "activation": shape.activation,
            "order": shape.order,
            "norm": shape.norm,
            "image": shape.image,
        },
    )


class Double(nn.Sequential):
    """Two 3x3 convolutions, each with an optional BatchNorm and an activation."""

    def __init__(self, fan_in: int, width: int, activation: str, norm: bool) -> None:
        parts: list[nn.Module] = []
        gain = activations.critical(activation, activations.lengths(activation)[0])[0]
        for channels in (fan_in, width):
            layer = nn.Conv2d(channels, width, 3, padding=1, bias=not norm)
            scale(layer, gain, "normal")
            parts += [layer, *([nn.BatchNorm2d(width)] if norm else []), activations.MODULES[activation]()]
        super().__init__(*parts)


class UNet(nn.Module):
    """Down, down, up, up, with the down path's states concatenated; a 1x1 head gives one map a class."""

    def __init__(
        self, inputs: int, width: int, levels: int, classes: int, activation: str, norm: bool
    ) -> None:
        super().__init__()
        sizes = [width * 2**i for i in range(levels + 1)]
        self.stem = Double(inputs, width, activation, norm)
        self.down = nn.ModuleList(Double(a, b, activation, norm) for a, b in pairwise(sizes))
        pairs = zip(reversed(sizes[:-1]), reversed(sizes[1:]), strict=True)
        self.up = nn.ModuleList(Double(a + b, a, activation, norm) for a, b in pairs)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        states = [self.stem(x)]
        for block in self.down:
            states.append(block(nn.functional.max_pool2d(states[-1], 2)))
        x = states.pop()
        for block in self.up:
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2), states.pop()], 1))
        return self.head(x).movedim(1, -1)  # type: ignore[no-any-return]


def unet(draw: Draw, task: Task | None = None, **fixed: object) -> Net:
    """A random U-Net on small images; its real cuts are the stem and the last block up."""
    task = task or draw_task(draw)
    levels, width = draw.randint(1, 3), draw.choice((8, 16, 24))
    activation, norm = draw.pick("relu", "leaky", "elu"), draw.chance(0.6)
    model = UNet(3, width, levels, task.classes, activation, norm)
    x = torch.randn(draw.randint(4, 8), 3, 16, 16)
    last = f"up.{levels - 1}"
    facts = {"depth": 4 * levels + 2, "width": width * 2**levels, "activation": activation, "norm": norm}
    return Net(
        "unet",
        model,
        (x, task.targets(x.shape[0], 16, 16)),
        task,
        ("stem", last),
        cut=("stem", last),
        head="head",
        facts=facts,
    ).but(**fixed)
