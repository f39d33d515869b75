"""Transformers: torch's encoder layers, and our own with a softmax or SDPA, pre-norm or post-norm."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.nets import activations
from benchmarks.nets.draw import Draw
from benchmarks.nets.losses import Task, draw_task
from benchmarks.nets.net import Net


@dataclass(frozen=True)
class TransformerShape:
    """A transformer; `form` is "torch", "softmax" or "sdpa", `order` "pre", "post" or "bare" (no skip)."""

    layers: int
    width: int
    heads: int
    tokens: int
    task: Task
    form: str = "sdpa"
    order: str = "pre"
    activation: str = "relu"
    readout: str = "mean"  # mean, first, each
    vocabulary: int = 0
    batch: int = 8
    branch: float = 1.0
    feedforward: bool = True
    causal: bool = False
    shared: bool = False
    dropout: float = 0.0
    xavier: bool = False

    def but(self, **changes: object) -> TransformerShape:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


class Attention(nn.Module):
    """Multi-head self-attention with four Linear layers; (B, T, D) -> (B, T, D)."""

    def __init__(self, width: int, heads: int, form: str, causal: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.heads, self.form, self.causal = heads, form, causal
        for layer in (self.q, self.k, self.v, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        if self.form == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
            if self.causal:
                future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
                logits = logits.masked_fill(future, -torch.inf)
            mixed = logits.softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention and a feed-forward part, each with its norm, in the given order."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        width = shape.width
        self.order = shape.order
        self.attention = Attention(width, shape.heads, shape.form, shape.causal)
        self.norm1 = nn.LayerNorm(width)
        self.feedforward, self.norm2 = None, None
        if shape.feedforward:
            parts = (
                nn.Linear(width, 2 * width),
                activations.MODULES[shape.activation](),
                nn.Linear(2 * width, width),
            )
            self.feedforward, self.norm2 = nn.Sequential(*parts), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.part(x, self.attention, self.norm1)
        if self.feedforward is not None and self.norm2 is not None:
            x = self.part(x, self.feedforward, self.norm2)
        return x

    def part(self, x: Tensor, branch: nn.Module, norm: nn.Module) -> Tensor:
        """One branch with its norm: before it, after the sum, or without any sum."""
        if self.order == "pre":
            return x + branch(norm(x))  # type: ignore[no-any-return]
        bare = self.order == "bare" and branch is self.attention
        return norm(branch(x) if bare else x + branch(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Tokens or vectors in, layers, an optional last norm, a head on the mean, the first or each position."""

    def __init__(self, shape: TransformerShape, layers: list[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(shape.vocabulary, shape.width) if shape.vocabulary else None
        self.position = nn.Parameter(torch.randn(shape.tokens, shape.width) * 0.5)
        self.layers = nn.ModuleList(layers[:1] if shape.shared else layers)
        self.repeats = len(layers) if shape.shared else 1
        self.last = nn.LayerNorm(shape.width) if shape.order == "pre" else nn.Identity()
        self.head = nn.Linear(shape.width, shape.task.classes)
        self.readout = shape.readout

    def forward(self, x: Tensor) -> Tensor:
        x = (x if self.embed is None else self.embed(x)) + self.position
        for layer in list(self.layers) * self.repeats:
            x = layer(x)
        x = self.last(x)
        if self.readout != "each":
            x = x.mean(1) if self.readout == "mean" else x[:, 0]
        return self.head(x)  # type: ignore[no-any-return]


def draw_transformer(draw: Draw, layers: int, **fixed: object) -> TransformerShape:
    """A random transformer of this many layers."""
    heads = draw.choice((1, 2, 4))
    return TransformerShape(
        layers,
        heads * draw.choice((16, 24, 32) if layers <= 12 else (12, 16)),
        heads,
        draw.randint(6, 20),
        draw_task(draw),
        form=draw.pick("torch", "softmax", "sdpa"),
        activation=draw.pick("relu", "gelu"),
        readout=draw.pick("mean", "first", "each"),
        vocabulary=draw.pick(0, 30),
        batch=draw.randint(8, 16) if layers <= 12 else 8,
    ).but(**fixed)


def layer(shape: TransformerShape) -> nn.Module:
    """One layer of the shape's form, its branches' last matrices times `branch`."""
    made: nn.Module = torch_layer(shape) if shape.form == "torch" else Layer(shape)
    lasts = ("self_attn.out_proj", "linear2") if shape.form == "torch" else ("attention.out", "feedforward.2")
    if shape.xavier:
        for parameter in made.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.removesuffix(".weight") in lasts:
                parameter.mul_(shape.branch)
    return made


def torch_layer(shape: TransformerShape) -> nn.Module:
    """PyTorch's own encoder layer of this shape."""
    return nn.TransformerEncoderLayer(
        shape.width,
        shape.heads,
        2 * shape.width,
        shape.dropout,
        activation=shape.activation,
        batch_first=True,
        norm_first=shape.order == "pre",
    )


def transformer(shape: TransformerShape) -> Net:
    """The net of a shape; uses torch's global generator."""
    model = Transformer(shape, [layer(shape) for _ in range(shape.layers)])
    size = (shape.batch, shape.tokens)
    x = torch.randint(0, shape.vocabulary, size) if shape.vocabulary else torch.randn(*size, shape.width)
    y = shape.task.targets(*(size if shape.readout == "each" else size[:1]))
    names = tuple(f"layers.{i}" for i in range(len(model.layers)))
    inner = "self_attn" if shape.form == "torch" else "attention"
    chosen = ("layers", "width", "heads", "tokens", "form", "order", "readout", "branch", "causal", "shared")
    return Net(
        "transformer",
        model,
        (x, y),
        shape.task,
        stream=names,
        attentions=tuple(f"{name}.{inner}" for name in names),
        cut=names[:-1] or names,
        head="head",
        facts={k: getattr(shape, k) for k in chosen},
    )
