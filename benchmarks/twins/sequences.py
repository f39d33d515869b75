"""Faults along time and tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.twins import Twin, adam
from benchmarks.twins.deep import CE
from benchmarks.twins.tasks import Task, majority, recall, summing


class Reader(nn.Module):
    """A recurrent layer read at its end."""

    def __init__(self, kind: type[nn.RNNBase], width: int = 24, leave: int = 4, **more: Any) -> None:
        super().__init__()
        self.core, self.head = kind(4, width, batch_first=True, **more), nn.Linear(width, leave)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.core(x)[0][:, -1])
        return out


@torch.no_grad()
def remembering(kind: type[nn.RNNBase], steps: int) -> nn.Module:
    """A recurrent layer whose start keeps what it read over many steps."""
    net = Reader(kind)
    width = net.core.hidden_size
    if kind is nn.RNN:
        nn.init.orthogonal_(net.core.weight_hh_l0)
        net.core.bias_hh_l0.zero_()
        net.core.bias_ih_l0.zero_()
    else:
        lengths = torch.log(1 + (steps - 2) * torch.rand(width))
        gate = slice(width, 2 * width)
        for b in (net.core.bias_ih_l0, net.core.bias_hh_l0):
            b[gate] = lengths / 2
        if kind is nn.LSTM:
            net.core.bias_ih_l0[:width] = -lengths / 2
            net.core.bias_hh_l0[:width] = -lengths / 2
    return net


def through_time(kind: type[nn.RNNBase], steps: int) -> Any:
    """The default start, or one that remembers."""
    return lambda sick: (Reader(kind) if sick else remembering(kind, steps), CE)


@torch.no_grad()
def exploding(sick: bool, nonlinearity: str = "tanh") -> Any:
    """Recurrent weights that are far too large."""
    net = Reader(nn.RNN, leave=2, nonlinearity=nonlinearity)
    nn.init.orthogonal_(net.core.weight_hh_l0)
    if sick:
        net.core.weight_hh_l0.mul_(5.0 if nonlinearity == "tanh" else 3.0)
    return net, CE


class Cell(nn.Module):
    """A tanh cell in a loop of its own; `cut` lets its state go at each step."""

    def __init__(self, cut: bool, width: int = 24) -> None:
        super().__init__()
        self.enter, self.again, self.head = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 4)
        nn.init.orthogonal_(self.again.weight)
        self.cut, self.width = cut, width

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.width)
        for t in range(x.shape[1]):
            h = h.detach() if self.cut else h
            h = torch.tanh(self.enter(x[:, t]) + self.again(h))
        out: Tensor = self.head(h)
        return out


class Tokens(nn.Module):
    """Symbols through transformer layers, averaged."""

    def __init__(self, layers: int, first: bool, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=first)
            for _ in range(layers)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h)
        out: Tensor = self.head(h.mean(1))
        return out


class Attention(nn.Module):
    """One query reads a memory of keys and values; `scale` multiplies the logits."""

    def __init__(self, gain: float, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.head = nn.Linear(width, 4)
        with torch.no_grad():
            self.q.weight.mul_(gain)
            self.k.weight.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        mixed = functional.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h))
        out: Tensor = self.head((h + mixed).mean(1))
        return out


class NoSkips(nn.Module):
    """Attention layers one behind the other, with or without a way around them."""

    def __init__(self, skips: bool, layers: int = 8, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, width)
        self.layers = nn.ModuleList(nn.MultiheadAttention(width, 4, batch_first=True) for _ in range(layers))
        self.head, self.skips = nn.Linear(width, 4), skips

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for layer in self.layers:
            new = layer(h, h, h)[0]
            h = h + new if self.skips else new
        out: Tensor = self.head(h.mean(1))
        return out


def _twin(name: str, kind: str, build: Any, task: Task, rate: float = 3e-3, **more: Any) -> Twin:
    return Twin(name, kind, build, task, adam(rate), **more)


TWINS = (
    _twin("rnn-200", "long sequence", through_time(nn.RNN, 200), recall(200, noise=0.02), 1e-3, steps=300),
    _twin("lstm-200", "long sequence", through_time(nn.LSTM, 200), recall(200, noise=0.02), 1e-2, steps=300),
    _twin(
        "gru-150",
        "long sequence",
        through_time(nn.GRU, 150),
        recall(150, noise=0.02),
        1e-2,
        steps=300,
        given=True,
    ),
    _twin("rnn-exploding", "recurrent weights", exploding, summing(30)),
    _twin("rnn-relu-exploding", "recurrent weights", lambda s: exploding(s, "relu"), summing(30), given=True),
    _twin("state-detached", "detached state", lambda s: (Cell(s), CE), recall(60, noise=0.02), 1e-3),
    _twin(
        "post-norm-16", "post-normalisation", lambda s: (Tokens(12, not s), CE), majority(), 1e-2, steps=150
    ),
    _twin(
        "attention-sharp",
        "attention collapse",
        lambda s: (Attention(40.0 if s else 1.0), CE),
        majority(),
        steps=100,
    ),
    _twin("attention-plain-8", "skips missing", lambda s: (NoSkips(not s), CE), majority()),
)
