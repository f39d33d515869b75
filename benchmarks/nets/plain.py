"""Plain nets: MLP, CNN and autoencoder, as `nn.Sequential` or as a loop with functional activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.nets import activations
from benchmarks.nets.draw import Draw
from benchmarks.nets.losses import Task, draw_task
from benchmarks.nets.net import Net

STYLES = ("sequential", "inplace", "functional")


@dataclass(frozen=True)
class Shape:
    """What a plain net looks like; `gain` multiplies the critical weights, `bias` the critical biases."""

    family: str
    widths: tuple[int, ...]
    activation: str
    q: float
    task: Task
    style: str = "sequential"
    norm: str = ""
    gain: float = 1.0
    bias: float = 1.0
    init: str = "normal"
    inputs: int = 16
    batch: int = 16
    image: int = 8
    dropout: float = 0.0
    padding: Literal["circular", "zeros"] = "circular"
    bias_before_norm: bool = True

    @property
    def depth(self) -> int:
        """Hidden layers."""
        return len(self.widths)

    def but(self, **changes: object) -> Shape:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


class Loop(nn.Module):
    """Hidden layers in a ModuleList, activations as functions, pooling and a head: as written by hand."""

    def __init__(
        self, layers: list[nn.Module], norms: list[nn.Module], phi: activations.Function, head: nn.Module
    ):
        super().__init__()
        self.layers, self.norms, self.head = nn.ModuleList(layers), nn.ModuleList(norms), head
        self.phi = phi

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if self.norms:
                x = self.norms[index](x)
            x = self.phi(x)
        return self.head(x.mean((2, 3)) if x.ndim == 4 else x)  # type: ignore[no-any-return]


class Pool(nn.Module):
    """The mean over an image's positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def draw_shape(
    draw: Draw, family: str, depth: int, activation: str, task: Task | None = None, **fixed: object
) -> Shape:
    """A random plain net of this depth; wide ones only where they stay fast."""
    task = task or draw_task(draw)
    if family == "cnn":
        width, batch = (
            draw.log_integer(16, 64 if depth <= 20 else 32),
            draw.randint(8, 16 if depth > 20 else 24),
        )
    else:
        width = draw.log_integer(
            32 if depth > 12 else 16, 512 if depth <= 10 else 256 if depth <= 30 else 128
        )
        batch = draw.randint(8, 64)
    widths = bottleneck(width, depth) if family == "autoencoder" else (width,) * depth
    inputs = 3 if family == "cnn" else draw.randint(8, 64)
    if family == "autoencoder":
        task = replace(task, kind="mse", classes=inputs)
    return Shape(
        family,
        widths,
        activation,
        draw.choice(activations.lengths(activation)),
        task,
        style=draw.choice(STYLES),
        init=draw.pick("normal", "uniform", "orthogonal")
        if family != "cnn"
        else draw.pick("normal", "uniform"),
        inputs=inputs,
        batch=batch,
        image=draw.choice((8, 8, 12)) if depth <= 20 else 6,
    ).but(**fixed)


def bottleneck(width: int, depth: int) -> tuple[int, ...]:
    """Widths that shrink to a code of at least 12 units in the middle and grow back."""
    code, middle = max(12, width // 4), (depth - 1) / 2
    return tuple(round(code + (width - code) * abs(i - middle) / max(middle, 1)) for i in range(depth))


def build(shape: Shape) -> Net:
    """The net of a shape, critically initialised times its gain; uses torch's global generator."""
    layers = hidden(shape)
    norms = [norm(shape, width) for width in shape.widths] if shape.norm else []
    head = nn.Linear(shape.widths[-1], shape.task.classes)
    initialise(shape, layers, head)
    model, names = assemble(shape, layers, norms, head)
    size = (shape.batch, shape.inputs, *((shape.image,) * 2 if shape.family == "cnn" else ()))
    x = torch.randn(size)
    y = x if shape.family == "autoencoder" else shape.task.targets(shape.batch)
    return Net(
        shape.family,
        model,
        (x, y),
        shape.task,
        stream=names,
        layers=names if not norms else (),
        activation=activations.FUNCTIONS[shape.activation],
        cut=names[1:-1] or names[:1],
        head="head",
        facts=facts(shape),
    )


def facts(shape: Shape) -> dict[str, object]:
    """What goes into a sample's description."""
    return {
        "depth": shape.depth,
        "width": max(shape.widths),
        "activation": shape.activation,
        "style": shape.style,
        "norm": shape.norm,
        "init": shape.init,
        "gain": shape.gain,
    }


def hidden(shape: Shape) -> list[nn.Module]:
    """Linear layers, or 3x3 convolutions of which a few halve the image."""
    sizes = [shape.inputs, *shape.widths]
    if shape.family != "cnn":
        return [nn.Linear(a, b, bias=has_bias(shape)) for a, b in pairwise(sizes)]
    shrink = {shape.depth // 2} if shape.image >= 8 and shape.depth > 3 else set()
    return [
        nn.Conv2d(a, b, 3, 2 if i in shrink else 1, 1, padding_mode=shape.padding, bias=has_bias(shape))
        for i, (a, b) in enumerate(pairwise(sizes))
    ]


def has_bias(shape: Shape) -> bool:
    """Whether layers have a bias; before a normalisation it is optional."""
    return not shape.norm or shape.bias_before_norm


def norm(shape: Shape, width: int) -> nn.Module:
    """A normalisation layer for this width."""
    if shape.norm == "layer":
        return nn.GroupNorm(1, width) if shape.family == "cnn" else nn.LayerNorm(width)
    return nn.BatchNorm2d(width) if shape.family == "cnn" else nn.BatchNorm1d(width)


@torch.no_grad()
def initialise(shape: Shape, layers: list[nn.Module], head: nn.Linear) -> None:
    """Critical weights and biases at q, times the shape's gains; "default" leaves PyTorch's."""
    if shape.init == "default":
        return
    weight, bias = activations.critical(shape.activation, shape.q)
    for index, layer in enumerate(layers):
        first = math.sqrt(max(shape.q - bias**2, 0.1 * shape.q))
        scale(layer, first if index == 0 and not shape.norm else weight * shape.gain, shape.init)
        if isinstance(layer.bias, Tensor):
            nn.init.normal_(layer.bias, std=bias * shape.bias)
    forward, _ = activations.moments(shape.activation, shape.q)
    scale(head, 1 / math.sqrt(forward), "normal")
    nn.init.zeros_(head.bias)


@torch.no_grad()
def scale(layer: nn.Module, gain: float, init: str) -> None:
    """Weights of variance gain^2 / fan_in."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    fan = weight[0].numel()
    if init == "orthogonal" and weight.ndim == 2 and weight.shape[0] == weight.shape[1]:
        nn.init.orthogonal_(weight, gain)
    elif init == "uniform":
        bound = gain * math.sqrt(3 / fan)
        nn.init.uniform_(weight, -bound, bound)
    else:
        nn.init.normal_(weight, std=gain / math.sqrt(fan))


def assemble(
    shape: Shape, layers: list[nn.Module], norms: list[nn.Module], head: nn.Module
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model in the shape's style, and the names of its hidden layers."""
    if shape.style == "functional" and not shape.dropout:
        loop = Loop(layers, norms, activations.FUNCTIONS[shape.activation], head)
        return loop, tuple(f"layers.{i}" for i in range(len(layers)))
    model, names = nn.Sequential(), []
    for index, layer in enumerate(layers):
        names.append(f"layer{index}")
        model.add_module(names[-1], layer)
        if norms:
            model.add_module(f"norm{index}", norms[index])
        model.add_module(f"act{index}", activation_module(shape))
        if shape.dropout:
            model.add_module(f"drop{index}", nn.Dropout(shape.dropout))
    if shape.family == "cnn":
        model.add_module("pool", Pool())
    model.add_module("head", head)
    return model, tuple(names)


def activation_module(shape: Shape) -> nn.Module:
    """The activation as a module, in place where the style asks and torch offers it."""
    module = activations.MODULES[shape.activation]()
    if shape.style == "inplace" and isinstance(getattr(module, "inplace", None), bool):
        module.inplace = True  # type: ignore[assignment]
    return module


def reset(model: nn.Module, names: tuple[str, ...], change: Callable[[nn.Module], None]) -> None:
    """Apply a change to the named modules, without gradients."""
    with torch.no_grad():
        for name in names:
            change(model.get_submodule(name))
