"""PyTorch's recurrent modules: how a cure finds them, and how it sets the biases of their gates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from unvanish.surgery.names import full_name, quote, split_label
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery, descendants

LAYER = re.compile(r"\.l\d+(_reverse)?$")  # how a recurrence of one layer and direction is named
FUSED = (nn.RNN, nn.LSTM, nn.GRU)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
LSTM, GRU = (nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell)


def find_recurrent(surgery: Surgery, target: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the recurrent modules at or below a target, or of a recurrence ("core.l0_reverse")."""
    path, _ = split_label(target)
    if not surgery.has(path) and LAYER.search(path):
        path = LAYER.sub("", path)
    path = "" if path == "(model)" else path
    if not surgery.has(path):
        raise SurgeryError(f"the model has no module {path!r}; the prescription does not fit it")
    some = False
    for name, module in descendants(surgery.model, path):
        if isinstance(module, FUSED + CELLS):
            some = True
            yield name, module
    if not some:
        raise SurgeryError(f"{target or '(model)'} contains no recurrent layer or cell of PyTorch")


def recurrent_modules(surgery: Surgery, targets: tuple[str, ...]) -> dict[str, nn.Module]:
    """Every recurrent module of the targets, each once."""
    return {name: module for target in targets for name, module in find_recurrent(surgery, target)}


def set_gate_biases(
    surgery: Surgery, path: str, module: nn.Module, values: dict[int, torch.Tensor | float], what: str
) -> None:
    """Set biases of gates, by number, on the input side; those on the recurrent side become zero."""
    size = int(module.hidden_size)  # type: ignore[arg-type]
    names = [n for n, _ in module.named_parameters(recurse=False) if n.startswith("bias_")]
    if not names:
        raise SurgeryError(
            f"{path or '(model)'} was built with bias=False, so its gates have no biases to set"
        )
    for name in sorted(names, key=lambda n: "_hh" in n):
        bias = surgery.parameter(full_name(path, name)).detach().clone()
        for gate, value in values.items():
            bias[gate * size : (gate + 1) * size] = 0.0 if "_hh" in name else value
        surgery.fill(full_name(path, name), bias, what)


def name_module(target: str) -> str:
    """The path of the module that a recurrence belongs to: "core.l0_reverse" is of "core"."""
    path = LAYER.sub("", split_label(target)[0])
    return "" if path == "(model)" else path


def write_cells(targets: Sequence[str], *lines: str) -> list[str]:
    """Lines of PyTorch that run for each recurrent `cell` at or below the targets."""
    paths = [quote(p) for p in dict.fromkeys(map(name_module, targets))]
    return [
        f"for path in [{', '.join(paths)}]:",
        "    for cell in model.get_submodule(path).modules():",
        *[f"        {line}" for line in lines],
    ]


def write_gates(targets: Sequence[str], draw: str, *lines: str) -> list[str]:
    """Lines of PyTorch that run for each bias `p` of each gated `cell`, whose gates have `size` units."""
    return write_cells(
        targets,
        "if not isinstance(cell, (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)):",
        "    continue",
        "size = cell.hidden_size",
        *([draw] if draw else []),
        "for name, p in cell.named_parameters():",
        "    if name.startswith('bias_'):",
        *[f"        {line}" for line in lines],
    )
