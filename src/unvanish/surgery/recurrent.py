"""Recurrent modules of PyTorch under the knife: their gates, their biases, their recurrent matrices."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import nn

from unvanish.surgery.functions import split
from unvanish.surgery.surgery import Surgery, SurgeryError, descendants

LAYER = re.compile(r"\.l\d+(_reverse)?$")  # how a recurrence of one layer and direction is named
FUSED = (nn.RNN, nn.LSTM, nn.GRU)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
LSTM, GRU = (nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell)


def found(surgery: Surgery, target: str) -> Iterator[tuple[str, nn.Module]]:
    """The recurrent modules at or below a target, which may be a recurrence's name ("core.l0_reverse")."""
    path, _ = split(target)
    if not surgery.has(path) and LAYER.search(path):
        path = LAYER.sub("", path)
    path = "" if path == "(model)" else path
    if not surgery.has(path):
        raise SurgeryError(f"the model has no module {path!r}; it does not fit this prescription")
    some = False
    for name, module in descendants(surgery.model, path):
        if isinstance(module, FUSED + CELLS):
            some = True
            yield name, module
    if not some:
        raise SurgeryError(f"{target or '(model)'} holds no recurrent layer or cell of PyTorch")


def once(surgery: Surgery, targets: tuple[str, ...]) -> dict[str, nn.Module]:
    """Every recurrent module of the targets, once."""
    return {name: module for target in targets for name, module in found(surgery, target)}


def full(path: str, name: str) -> str:
    """A parameter's name in the model."""
    return f"{path}.{name}" if path else name


def biases(
    surgery: Surgery, path: str, module: nn.Module, values: dict[int, torch.Tensor | float], what: str
) -> None:
    """Set gates' biases (by gate's number) on the input side; the other side's gates become zero."""
    size = int(module.hidden_size)  # type: ignore[arg-type]
    names = [n for n, _ in module.named_parameters(recurse=False) if n.startswith("bias_")]
    if not names:
        raise SurgeryError(
            f"{path or '(model)'} was built with bias=False, so its gates have no biases to set"
        )
    for name in sorted(names, key=lambda n: "_hh" in n):
        bias = surgery.parameter(full(path, name)).detach().clone()
        for gate, value in values.items():
            bias[gate * size : (gate + 1) * size] = 0.0 if "_hh" in name else value
        surgery.fill(full(path, name), bias, what)
