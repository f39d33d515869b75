"""Healthy designs with odd gradients on purpose: adapters, ties, sparsity, stop-gradients, empty levels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from benchmarks.nets import hosts, plain
from benchmarks.nets.draw import Draw
from benchmarks.nets.losses import Task, draw_task
from benchmarks.nets.net import Net
from benchmarks.nets.transformers import draw_transformer, transformer

ZERO = frozenset({"zero"})


class Adapted(nn.Module):
    """A frozen Linear with a low-rank update, B = 0 at the start (LoRA, Hu et al. 2021)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.a.T @ self.b.T  # type: ignore[no-any-return]


def lora(draw: Draw) -> Net:
    """Adapters on the values and queries of a frozen transformer, or on every layer of a frozen MLP."""
    if draw.chance(0.5):
        shape = draw_transformer(draw, draw.randint(1, 6), order="pre", form=draw.pick("softmax", "sdpa"))
        net, parts = (
            transformer(shape),
            [(f"layers.{i}.attention", k) for i in range(shape.layers) for k in "qv"],
        )
        net = net.but(attentions=())
    else:
        shallow = plain.draw_shape(draw, "mlp", draw.randint(2, 8), draw.choice(hosts.HEALTHY))
        net = plain.build(shallow.but(style="sequential"))
        parts = [("", name) for name in net.stream]
    for parameter in net.model.parameters():
        parameter.requires_grad_(False)
    rank = draw.randint(1, 4)
    for owner, leaf in parts:
        parent = net.model.get_submodule(owner)
        setattr(parent, leaf, Adapted(parent.get_submodule(leaf), rank))  # type: ignore[arg-type]
    net.model.get_submodule("head").requires_grad_(draw.chance(0.7))
    return net.but(tolerate=ZERO, facts={"rank": rank})


class Language(nn.Module):
    """A next-token model whose head is its embedding."""

    def __init__(self, body: nn.Module, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.body, self.norm = body, nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        embedded, ahead = self.embed(x), {}
        if isinstance(self.body, nn.TransformerEncoder):  # else each position sees its answer
            ahead["mask"] = nn.Transformer.generate_square_subsequent_mask(x.shape[1]).to(embedded.dtype)
        states: Any = self.body(embedded, **ahead)
        return self.head(self.norm(states[0] if isinstance(states, tuple) else states))  # type: ignore[no-any-return]


def tied(draw: Draw) -> Net:
    """A small language model with tied embeddings, over a GRU or pre-norm layers."""
    width, vocabulary, steps = draw.choice((16, 32, 48)), draw.randint(20, 200), draw.randint(6, 16)
    if draw.chance(0.4):
        body: nn.Module = nn.GRU(width, width, batch_first=True)
    else:
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True, norm_first=True)
        body = nn.TransformerEncoder(layer, draw.randint(1, 4), enable_nested_tensor=False)
    tokens = torch.randint(0, vocabulary, (draw.randint(4, 12), steps + 1))
    task = Task(
        "cross-entropy", vocabulary, draw.pick("mean", "sum"), draw.pick(1.0, draw.log_uniform(1e-6, 1e4))
    )
    model = Language(body, vocabulary, width)
    return Net(
        "transformer", model, (tokens[:, :-1], tokens[:, 1:].contiguous()), task, facts={"width": width}
    )


class Bag(nn.Module):
    """Word vectors, summed or averaged, and an MLP; gradients of the vectors are sparse."""

    def __init__(self, vocabulary: int, width: int, classes: int, bag: bool) -> None:
        super().__init__()
        kind = nn.EmbeddingBag if bag else nn.Embedding
        self.embed = kind(vocabulary, width, sparse=True)
        self.hidden, self.head = nn.Linear(width, width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x.mean(1) if x.ndim == 3 else x
        return self.head(torch.relu(self.hidden(x)))  # type: ignore[no-any-return]


def sparse(draw: Draw) -> Net:
    """A large vocabulary of which a batch touches a few rows."""
    task, vocabulary, batch = draw_task(draw), draw.randint(500, 5000), draw.randint(8, 32)
    model = Bag(vocabulary, draw.choice((16, 32, 64)), task.classes, draw.chance(0.5))
    x = torch.randint(0, vocabulary, (batch, draw.randint(4, 12)))
    return Net("mlp", model, (x, task.targets(batch)), task, facts={"vocabulary": vocabulary})


class StraightThrough(nn.Module):
    """Rounds its input and passes the gradient as if it had not (Bengio et al. 2013)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (torch.round(4 * x) / 4 - x).detach()


class Taught(nn.Module):
    """A student and a frozen teacher called under no_grad; the output is their difference."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            goal = self.teacher(x)
        return self.student(x) - 0.1 * goal  # type: ignore[no-any-return]


class Logged(nn.Module):
    """Detaches only to log a statistic and to choose a scale, as healthy code does."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.net(x)
        self.seen = x.detach().abs().mean()
        return x / max(1.0, float(x.detach().abs().max()) / 10)


def stop_gradient(draw: Draw) -> Net:
    """Detaches that harm nothing: straight-through rounding, a frozen teacher, logging."""
    mode = draw.pick("straight-through", "teacher", "logging")
    shape = plain.draw_shape(draw, "mlp", draw.randint(2, 8), draw.choice(hosts.HEALTHY)).but(
        style="sequential"
    )
    net = plain.build(shape)
    if mode == "straight-through":
        name = draw.choice(net.stream)
        setattr(net.model, name, nn.Sequential(net.model.get_submodule(name), StraightThrough()))
        return net.but(facts={"design": mode}, layers=())
    torch.manual_seed(draw.getrandbits(60))
    other = Taught(net.model, plain.build(shape).model) if mode == "teacher" else Logged(net.model)
    prefix = "student" if mode == "teacher" else "net"
    names = tuple(f"{prefix}.{n}" for n in net.stream)
    return net.but(model=other, stream=names, layers=names, facts={"design": mode})


class Levels(nn.Module):
    """A detector's heads at three scales over one backbone; each gives a score and a box a cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
            for _ in range(3)
        )
        self.score = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in range(3))
        self.box = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in range(3))

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        x, found = self.stem(x), []
        for down, score, box in zip(self.down, self.score, self.box, strict=True):
            x = down(x)
            found.append((score(x), box(x)))
        return found


class Detection:
    """Scores everywhere, boxes only at positives; one level has none."""

    def __init__(self, empty: int, scale: float) -> None:
        self.empty, self.scale = empty, scale

    def __call__(self, output: list[tuple[Tensor, Tensor]], y: Tensor) -> Tensor:
        total = y.new_zeros(())
        for level, (score, box) in enumerate(output):
            positive = (torch.arange(score[0].numel()).view(score[0].shape) % 5 == 0).to(score) * (
                level != self.empty
            )
            target = positive.expand_as(score)
            total = total + nn.functional.binary_cross_entropy_with_logits(score, target)
            total = total + (
                (box - y.to(box).view(-1, 4, 1, 1)) ** 2 * target
            ).sum() / target.sum().clamp_min(1)
        return self.scale * total


def empty_level(draw: Draw) -> Net:
    """A detector one of whose levels has no positive: its box head gets exactly no gradient, this time."""
    loss = Detection(draw.randint(0, 2), draw.pick(1.0, draw.log_uniform(1e-6, 1e4)))
    batch = draw.randint(2, 6)
    data = torch.randn(batch, 3, 16, 16), torch.randn(batch, 4)
    return Net("cnn", Levels(draw.choice((8, 16))), data, loss, tolerate=ZERO, facts={"empty": loss.empty})


def weight_norm(draw: Draw) -> Net:
    """A plain net whose weights are reparametrised into size and direction."""
    shape = plain.draw_shape(
        draw, draw.pick("mlp", "cnn"), draw.randint(2, 10), draw.pick("relu", "tanh", "elu")
    )
    net = plain.build(shape.but(style="sequential"))
    for name in net.stream:
        parametrizations.weight_norm(net.model.get_submodule(name))
    return net


class Repeated(nn.Module):
    """One layer called k times: a depth that is a recurrence."""

    def __init__(self, inputs: int, width: int, times: int, classes: int) -> None:
        super().__init__()
        self.stem, self.layer, self.head = (
            nn.Linear(inputs, width),
            nn.Linear(width, width),
            nn.Linear(width, classes),
        )
        self.times = times
        nn.init.orthogonal_(self.layer.weight)
        nn.init.normal_(self.stem.weight, std=0.3 / math.sqrt(inputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(self.times):
            x = torch.tanh(self.layer(x))
        return self.head(x)  # type: ignore[no-any-return]


def shared_layer(draw: Draw) -> Net:
    """A net that calls one layer several times."""
    task, inputs, batch = draw_task(draw), draw.randint(8, 32), draw.randint(8, 32)
    model = Repeated(inputs, draw.choice((32, 64)), draw.randint(2, 10), task.classes)
    data = torch.randn(batch, inputs), task.targets(batch)
    return Net("mlp", model, data, task, stream=("layer",), facts={"times": model.times})


class Gated(nn.Module):
    """Residual gated feed-forward blocks behind RMSNorm-like scaling (SwiGLU, Shazeer 2020)."""

    def __init__(self, width: int, blocks: int, classes: int) -> None:
        super().__init__()

        def make(a: int, b: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Linear(a, b, bias=False) for _ in range(blocks))

        self.gate, self.up, self.down = make(width, 2 * width), make(width, 2 * width), make(2 * width, width)
        self.norms, self.head = (
            nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks)),
            nn.Linear(width, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        for norm, gate, up, down in zip(self.norms, self.gate, self.up, self.down, strict=True):
            h = norm(x)
            x = x + down(nn.functional.silu(gate(h)) * up(h))
        return self.head(x)  # type: ignore[no-any-return]


def gated(draw: Draw) -> Net:
    """A residual net of gated blocks."""
    task, width, batch = draw_task(draw), draw.choice((16, 32, 64)), draw.randint(8, 32)
    model = Gated(width, draw.randint(2, 8), task.classes)
    names = tuple(f"norms.{i}" for i in range(len(model.norms)))
    return Net("mlp", model, (torch.randn(batch, width), task.targets(batch)), task, stream=names)
