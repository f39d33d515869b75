"""What comes in order: recurrent networks, transformers, convolutions in time; and graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.language import VOCABULARY, Text
from benchmarks.trainings.basis import (
    Learned,
    Open,
    compare,
    fit,
    pick_digits,
    score,
    training,
    warm_up,
)

WORDS = VOCABULARY


class Rows(nn.Module):
    """A recurrent network over the rows of a picture."""

    def __init__(self, kind: type[nn.Module], width: int = 48, **options: Any) -> None:
        super().__init__()
        self.core = kind(8, width, batch_first=True, **options)
        self.head = nn.Linear(width * (2 if options.get("bidirectional") else 1), 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x.flatten(1, 2))[0].mean(1))


@training
def plain_recurrence(watching: Open) -> Learned:
    net = Rows(nn.RNN)
    fit(watching, net, torch.optim.RMSprop(net.parameters(), 1e-3), pick_digits(1600), clip=1.0)
    return score(net, 0.75)


@training
def long_memory(watching: Open) -> Learned:
    net = Rows(nn.LSTM)
    fit(watching, net, torch.optim.Adam(net.parameters(), 3e-3), pick_digits(350))
    return score(net, 0.8)


@training
def gates_of_two_directions(watching: Open) -> Learned:
    net = Rows(nn.GRU, 32, bidirectional=True, num_layers=2, dropout=0.2)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    fit(watching, net, optimizer, pick_digits(250), plan=warm_up(optimizer, 30, 250))
    return score(net, 0.8)


@training
def sums_of_marked_numbers(watching: Open) -> Learned:
    """Hochreiter & Schmidhuber 1997, short."""

    class Adder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core, self.head = nn.LSTM(2, 32, batch_first=True), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.core(x)[0][:, -1])[:, 0]

    def draw(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(steps):
            value, mark = torch.rand(64, 10), torch.zeros(64, 10)
            mark.scatter_(1, torch.stack([torch.randint(0, 5, (64,)), torch.randint(5, 10, (64,))], 1), 1.0)
            yield torch.stack([value, mark], 2), (value * mark).sum(1)

    net = Adder()
    losses = fit(
        watching, net, torch.optim.Adam(net.parameters(), 1e-2), draw(800),
        lambda x, y: F.mse_loss(net(x), y), clip=1.0,
    )  # fmt: skip
    return Learned("error", sum(losses[-50:]) / 50, 0.05, False)


def draw_text(steps: int, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Sentences of a small language, and what comes next."""
    text = Text(5)
    for _ in range(steps):
        words = text.draw(size)
        yield words[:, :-1], words[:, 1:]


def speak(net: nn.Module) -> Any:
    """The loss of the next word."""
    return lambda x, y: F.cross_entropy(net(x).flatten(0, 1), y.flatten())


@training
def recurrent_language(watching: Open) -> Learned:
    class Speaker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.core = nn.Embedding(WORDS, 32), nn.LSTM(32, 64, batch_first=True)
            self.head = nn.Linear(64, WORDS)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.core(self.words(x))[0])

    net = Speaker()
    return compare(
        fit(watching, net, torch.optim.Adam(net.parameters(), 5e-3), draw_text(350), speak(net), clip=1.0),
        0.75,
    )


@training
def carried_state(watching: Open) -> Learned:
    """Backpropagation through time, truncated: the state goes on, detached."""

    class Walker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.core = nn.Embedding(WORDS, 32), nn.GRU(32, 48, batch_first=True)
            self.head = nn.Linear(48, WORDS)

        def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Tensor]:
            out, state = self.core(self.words(x), state)
            return self.head(out), state.detach()

    net, state, losses = Walker(), None, []
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    with watching(net, optimizer, None):
        for x, y in draw_text(150):
            state = None
            for a, b in zip(x.split(4, 1), y.split(4, 1), strict=True):
                optimizer.zero_grad()
                out, state = net(a, state)
                loss = F.cross_entropy(out.flatten(0, 1), b.flatten())
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    return compare(losses, 0.75)


class Causal(nn.Module):
    """A small causal transformer; `tied`: words and answers share their weights."""

    def __init__(self, width: int = 32, depth: int = 2, tied: bool = False, first: bool = True) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=first
        )
        self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, WORDS, bias=False)
        for place in (self.words, self.places):
            nn.init.normal_(place.weight, std=0.02)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        x = self.words(x) + self.places(torch.arange(x.shape[1]))
        return self.head(self.norm(self.body(x, mask=mask, is_causal=True)))


@training
def causal_transformer(watching: Open) -> Learned:
    net = Causal(tied=True)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    plan = warm_up(optimizer, 40, 700)
    return compare(fit(watching, net, optimizer, draw_text(700), speak(net), plan=plan, clip=1.0), 0.75)


@training
def transformer_with_norms_behind(watching: Open) -> Learned:
    net = Causal(first=False)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3, betas=(0.9, 0.98))
    plan = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 60, (60 / (s + 1)) ** 0.5))
    return compare(fit(watching, net, optimizer, draw_text(800), speak(net), plan=plan), 0.75)


@training
def masked_words(watching: Open) -> Learned:
    net = Causal()
    empty = WORDS - 1

    def measure(x: Tensor, y: Tensor) -> Tensor:
        hidden = torch.rand(x.shape) < 0.15
        seen = net.body(net.words(x.masked_fill(hidden, empty)) + net.places(torch.arange(x.shape[1])))
        return F.cross_entropy(net.head(net.norm(seen)).flatten(0, 1), x.masked_fill(~hidden, -100).flatten())

    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    return compare(
        fit(watching, net, optimizer, draw_text(400), measure, plan=warm_up(optimizer, 40, 400)), 0.95
    )


@training
def words_in_reverse(watching: Open) -> Learned:
    """An encoder and a decoder with attention between them."""

    class Turner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(WORDS, 32), nn.Embedding(16, 32)
            self.core = nn.Transformer(32, 4, 1, 1, 64, 0.0, batch_first=True, norm_first=True)
            self.head = nn.Linear(32, WORDS)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            at = self.places(torch.arange(x.shape[1]))
            mask = nn.Transformer.generate_square_subsequent_mask(y.shape[1])
            return self.head(self.core(self.words(x) + at, self.words(y) + at, tgt_mask=mask))

    net = Turner()

    def measure(x: Tensor) -> Tensor:
        wanted = x.flip(1)
        given = torch.cat([torch.zeros_like(x[:, :1]), wanted[:, :-1]], 1)
        return F.cross_entropy(net(x, given).flatten(0, 1), wanted.flatten())

    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    text = ((torch.randint(1, 16, (32, 6)),) for _ in range(500))
    return compare(fit(watching, net, optimizer, text, measure, plan=warm_up(optimizer, 50, 500)), 0.5)


@training
def convolutions_in_time(watching: Open) -> Learned:
    class Dilated(nn.Module):
        def __init__(self, width: int, gap: int) -> None:
            super().__init__()
            self.conv, self.gap = nn.Conv1d(width, width, 2, dilation=gap), gap

        def forward(self, x: Tensor) -> Tensor:
            return x + F.relu(self.conv(F.pad(x, (self.gap, 0))))

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(WORDS, 32)
            self.body = nn.Sequential(*(Dilated(32, 2**k) for k in range(3)), nn.Conv1d(32, WORDS, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(self.words(x).transpose(1, 2)).transpose(1, 2)

    net = Stack()
    return compare(
        fit(watching, net, torch.optim.Adam(net.parameters(), 5e-3), draw_text(400), speak(net)), 0.75
    )


@training
def mixture_of_experts(watching: Open) -> Learned:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.gate, self.head = nn.Linear(64, 32), nn.Linear(32, 4), nn.Linear(32, 10)
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(4)
            )
            self.balance = torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x.flatten(1))
            share = self.gate(x).softmax(-1)
            top, chosen = share.topk(2, -1)
            every = torch.stack([e(x) for e in self.experts], 1)  # (B, 4, D)
            load = F.one_hot(chosen[:, 0], 4).float().mean(0)
            self.balance = 4 * (load * share.mean(0)).sum()
            some = every.gather(1, chosen[..., None].expand(-1, -1, 32))
            return self.head(x + (some * top[..., None]).sum(1))

    net = Experts()
    fit(
        watching, net, torch.optim.AdamW(net.parameters(), 2e-3), pick_digits(500),
        lambda x, y: F.cross_entropy(net(x), y) + 0.01 * net.balance,
    )  # fmt: skip
    return score(net)


@training
def convolutions_of_a_graph(watching: Open) -> Learned:
    """Kipf & Welling 2017, on communities that were drawn."""
    label = torch.arange(200) % 4
    odds = torch.where(label[:, None] == label, 0.12, 0.01)
    edges = (torch.rand(200, 200) < odds).float()
    edges = ((edges + edges.T).clamp(max=1) + torch.eye(200)).clamp(max=1)
    root = edges.sum(1).rsqrt()
    walk, feature = root[:, None] * edges * root, torch.randn(200, 16) + 0.3 * F.one_hot(label, 16)

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(walk @ F.dropout(F.relu(self.a(walk @ x)), 0.5, self.training))

    net, order = Graph(), torch.randperm(200)
    known, others = order[:100], order[100:]
    optimizer = torch.optim.Adam(net.parameters(), 1e-2, weight_decay=5e-4)
    fit(
        watching, net, optimizer, ((feature,) for _ in range(400)),
        lambda x: F.cross_entropy(net(x)[known], label[known]),
    )  # fmt: skip
    net.eval()
    right = (net(feature).argmax(1) == label)[others].float().mean()
    return Learned("accuracy", float(right), 0.7)
