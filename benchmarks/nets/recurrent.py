"""Recurrent nets: fused RNN, LSTM and GRU, torch's cells in a loop, and cells written by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.nets.draw import Draw
from benchmarks.nets.losses import Task, draw_task
from benchmarks.nets.net import Net

GATES = {"rnn": 1, "gru": 3, "lstm": 4}


@dataclass(frozen=True)
class TimeShape:
    """A recurrent net; `init` is "default", "orthogonal", "identity" (times `gain`), "forget" or "chrono"."""

    cell: str
    steps: int
    hidden: int
    task: Task
    form: str = "fused"  # fused, cell, hand
    readout: str = "last"  # last, each, mean
    init: str = "default"
    gain: float = 1.0
    nonlinearity: str = "tanh"
    layers: int = 1
    bidirectional: bool = False
    vocabulary: int = 0
    inputs: int = 8
    batch: int = 16

    def but(self, **changes: object) -> TimeShape:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


class HandCell(nn.Module):
    """h' = phi(W x + U h), as people write it by hand."""

    def __init__(self, inputs: int, hidden: int, nonlinearity: str) -> None:
        super().__init__()
        self.x2h, self.h2h = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden, bias=False)
        self.phi = torch.tanh if nonlinearity == "tanh" else torch.relu

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.phi(self.x2h(x) + self.h2h(h))


class Unrolled(nn.Module):
    """A cell called once a step; input (B, T, F), output (B, T, H)."""

    def __init__(self, cell: nn.Module, hidden: int) -> None:
        super().__init__()
        self.cell, self.hidden = cell, hidden

    def forward(self, x: Tensor) -> Tensor:
        h: Any = x.new_zeros(x.shape[0], self.hidden)
        state = (h, torch.zeros_like(h)) if isinstance(self.cell, nn.LSTMCell) else h
        outputs = []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs, 1)


class Reader(nn.Module):
    """Embedding if there are tokens, a recurrent core, and a head on the last, each or the mean state."""

    def __init__(self, core: nn.Module, embed: nn.Module | None, head: nn.Module, readout: str) -> None:
        super().__init__()
        self.embed, self.core, self.head, self.readout = embed, core, head, readout

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.embed is None else self.embed(x)
        states = self.core(x)
        states = states[0] if isinstance(states, tuple) else states
        if self.readout == "last":
            states = states[:, -1]
        elif self.readout == "mean":
            states = states.mean(1)
        return self.head(states)  # type: ignore[no-any-return]


def draw_time(draw: Draw, cell: str, steps: int, **fixed: object) -> TimeShape:
    """A random recurrent net of this cell over this many steps."""
    return TimeShape(
        cell,
        steps,
        draw.log_integer(16, 96),
        draw_task(draw),
        form=draw.pick("fused", "fused", "cell", "hand")
        if cell == "rnn"
        else draw.pick("fused", "fused", "cell"),
        vocabulary=draw.pick(0, 0, 20),
        inputs=draw.randint(4, 16),
        batch=draw.randint(8, 24),
    ).but(**fixed)


def core(shape: TimeShape) -> nn.Module:
    """The recurrent part, uninitialised."""
    extra = {"nonlinearity": shape.nonlinearity} if shape.cell == "rnn" else {}
    if shape.form == "fused":
        kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[shape.cell]
        return kind(  # type: ignore[no-any-return]
            shape.inputs,
            shape.hidden,
            shape.layers,
            batch_first=True,
            bidirectional=shape.bidirectional,
            **extra,
        )
    if shape.form == "hand" and shape.cell == "rnn":
        return Unrolled(HandCell(shape.inputs, shape.hidden, shape.nonlinearity), shape.hidden)
    kind = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[shape.cell]
    return Unrolled(kind(shape.inputs, shape.hidden, **extra), shape.hidden)


def recurrent(shape: TimeShape) -> Net:
    """The net of a shape; uses torch's global generator."""
    body = core(shape)
    initialise(shape, body)
    embed = nn.Embedding(shape.vocabulary, shape.inputs) if shape.vocabulary else None
    head = nn.Linear(shape.hidden * (2 if shape.bidirectional else 1), shape.task.classes)
    size = (shape.batch, shape.steps)
    x = torch.randint(0, shape.vocabulary, size) if shape.vocabulary else torch.randn(*size, shape.inputs)
    y = shape.task.targets(*(size if shape.readout == "each" else size[:1]))
    return Net(
        shape.cell,
        Reader(body, embed, head, shape.readout),
        (x, y),
        shape.task,
        sequence="core",
        cut=(("embed",) if embed else ()) + (("core",) if shape.form != "fused" else ()),
        head="head",
        facts={
            k: getattr(shape, k) for k in ("steps", "hidden", "form", "readout", "init", "gain", "layers")
        },
    )


@torch.no_grad()
def initialise(shape: TimeShape, body: nn.Module) -> None:
    """Recurrent matrices and gate biases by `shape.init`; the rest is PyTorch's."""
    hidden = shape.hidden
    for name, parameter in body.named_parameters():
        if shape.init == "orthogonal" and ("weight_hh" in name or "h2h" in name):
            for gate in torch.split(parameter, hidden):
                nn.init.orthogonal_(gate, shape.gain)
        if shape.init == "identity" and ("weight_hh" in name or "h2h" in name):
            nn.init.eye_(parameter).mul_(shape.gain)
        if shape.init in ("forget", "chrono") and ("bias_ih" in name or "bias_hh" in name):
            gate_biases(shape, parameter, first="bias_ih" in name)


def gate_biases(shape: TimeShape, bias: Tensor, first: bool) -> None:
    """Long-memory biases: ln U(1, T - 1) or a constant at the forget (LSTM) or update (GRU) gate."""
    hidden = shape.hidden
    bias.zero_()
    if not first:
        return
    long = torch.log(torch.rand(hidden) * (shape.steps - 2) + 1)
    keep = long if shape.init == "chrono" else torch.full((hidden,), shape.gain)
    if shape.cell == "lstm":
        bias[:hidden], bias[hidden : 2 * hidden] = (-keep if shape.init == "chrono" else 0.0), keep
    elif shape.cell == "gru":
        bias[hidden : 2 * hidden] = keep
