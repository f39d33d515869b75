"""Healthy nets of any family, into which a fault can be planted or which are judged as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from benchmarks.nets import activations, plain, skips
from benchmarks.nets.draw import Draw
from benchmarks.nets.losses import Task
from benchmarks.nets.net import Net
from benchmarks.nets.recurrent import draw_time, recurrent
from benchmarks.nets.transformers import draw_transformer, transformer

HEALTHY = (*activations.RECTIFIERS, *activations.CENTRED, *activations.SMOOTH)


def host(draw: Draw, task: Task | None = None) -> Net:
    """A healthy net of a random family, for a given task or a random one."""
    kind = draw.pick("mlp", "mlp", "cnn", "resnet", "unet", "time", "transformer", "transformer")
    if kind in ("mlp", "cnn"):
        return plain_host(draw, task, kind)
    if kind == "resnet":
        return skips.resnet(skips.draw_resnet(draw, draw.randint(2, 12), task))
    if kind == "unet":
        return skips.unet(draw, task)
    return time_host(draw, task) if kind == "time" else transformer_host(draw, task)


def plain_host(draw: Draw, task: Task | None = None, family: str = "") -> Net:
    """A plain critical MLP or CNN."""
    family = family or draw.pick("mlp", "cnn")
    depth = draw.log_integer(2, 24)
    return plain.build(plain.draw_shape(draw, family, depth, draw.choice(HEALTHY), task))


def time_host(draw: Draw, task: Task | None = None) -> Net:
    """A recurrent net that keeps its gradient: an unrolled one, or one that reads tokens."""
    cell = draw.pick("rnn", "gru", "lstm")
    shape = draw_time(draw, cell, draw.randint(4, 24), readout=draw.pick("each", "mean"))
    shape = (
        shape.but(form=draw.pick("cell", "hand") if cell == "rnn" else "cell")
        if not shape.vocabulary
        else shape
    )
    return recurrent(shape if task is None else shape.but(task=task))


def transformer_host(draw: Draw, task: Task | None = None) -> Net:
    """A pre-norm transformer, or a shallow post-norm one."""
    order = draw.pick("pre", "pre", "post")
    shape = draw_transformer(draw, draw.randint(1, 12 if order == "pre" else 4), order=order)
    return transformer(shape if task is None else shape.but(task=task))


def optimizer(draw: Draw, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """A common optimizer over these parameters."""
    optim = torch.optim
    kinds: tuple[Callable[..., torch.optim.Optimizer], ...] = (optim.SGD, optim.Adam, optim.AdamW)
    return draw.choice(kinds)(list(parameters), lr=draw.log_uniform(1e-4, 1e-2))
