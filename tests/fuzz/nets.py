"""Random networks, optimizers and schedules for the loops, each drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CLASSES = 4
ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.Hardtanh, nn.Softplus)
FUNCTIONS: tuple[Callable[..., Tensor], ...] = (
    torch.relu,
    nn.functional.gelu,
    torch.tanh,
    lambda x: nn.functional.normalize(x, dim=-1),
    lambda x: nn.functional.dropout(x, 0.1),
    lambda x: nn.functional.softmax(x, -1),
    lambda x: nn.functional.layer_norm(x, x.shape[-1:]),
    lambda x: x + torch.func.vmap(torch.sin)(x),
    lambda x: x - 0.1 * torch.func.grad(lambda z: z.tanh().sum())(x),
    lambda x: x * torch.rand_like(x),
    lambda x: x.clone().mul_(0.5).clamp_(-3, 3),
)


class Skip(nn.Module):
    """A branch beside the identity, perhaps checkpointed, perhaps called twice."""

    def __init__(self, body: nn.Module, how: str) -> None:
        super().__init__()
        self.body, self.how = body, how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "checkpoint":
            return x + checkpoint(self.body, x, use_reentrant=False)
        if self.how == "reentrant":
            return x + checkpoint(self.body, x, use_reentrant=True)
        if self.how == "twice":
            return x + self.body(self.body(x))
        return x + self.body(x)


class Call(nn.Module):
    """A function, as a module that a copy and a pickle of the network find again."""

    def __init__(self, which: int) -> None:
        super().__init__()
        self.which = which

    def forward(self, x: Tensor) -> Tensor:
        return FUNCTIONS[self.which](x)


class Recurrent(nn.Module):
    """A recurrent layer over four pieces of a row."""

    def __init__(self, kind: Any, width: int, **options: Any) -> None:
        super().__init__()
        self.layer = kind(width // 4, width // 2, batch_first=True, bidirectional=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.unflatten(-1, (4, -1)))[0].mean(1)


class Attention(nn.Module):
    """A transformer layer over four pieces of a row."""

    def __init__(self, width: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            width // 4, 2, width, dropout, batch_first=True, norm_first=first
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.unflatten(-1, (4, -1))).flatten(1)


class Image(nn.Module):
    """Convolutions over a row as a picture."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.conv, self.back = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.back(torch.relu_(self.norm(self.conv(x.unflatten(-1, (1, 4, -1)))))).flatten(1)


class Words(nn.Module):
    """An embedding looked up by the signs of a row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(8, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table((x[:, :3] > 0).long() @ torch.tensor([4, 2, 1]))


def draw_part(rng: random.Random, width: int, depth: int = 0) -> nn.Module:
    """A module from width to width."""
    kind = rng.choice(["linear"] * 3 + ["act"] * 2 + ["function"] * 2 + ["norm", "drop", "image", "words"]
                      + ["recurrent", "attention", "frozen"] + ["skip"] * (depth < 2))  # fmt: skip
    if kind == "linear":
        layer = nn.Linear(width, width, bias=rng.random() < 0.8)
        return nn.utils.parametrizations.weight_norm(layer) if rng.random() < 0.1 else layer
    if kind == "act":
        chosen = rng.choice(ACTIVATIONS)
        return chosen(inplace=True) if chosen is nn.ReLU and rng.random() < 0.5 and depth else chosen()
    if kind == "function":
        return Call(rng.randrange(len(FUNCTIONS)))
    if kind == "norm":
        return rng.choice([nn.BatchNorm1d, nn.LayerNorm])(width)
    if kind == "drop":
        return nn.Dropout(rng.choice([0.1, 0.5]))
    if kind == "image":
        return Image(width, rng.random() < 0.5)
    if kind == "words":
        return Words(width)
    if kind == "recurrent":
        return Recurrent(rng.choice([nn.RNN, nn.LSTM, nn.GRU]), width, num_layers=rng.choice([1, 2]))
    if kind == "attention":
        return Attention(width, rng.choice([0.0, 0.1]), rng.random() < 0.5)
    if kind == "frozen":
        return draw_part(rng, width, 2).eval().requires_grad_(False)
    body = nn.Sequential(*(draw_part(rng, width, depth + 1) for _ in range(rng.randint(1, 3))))
    return Skip(body, rng.choice(["", "", "checkpoint", "reentrant", "twice"]))


def draw_model(rng: random.Random) -> nn.Module:
    """A network from 8 numbers to the classes."""
    width = rng.choice([8, 16, 32])
    parts = [draw_part(rng, width) for _ in range(rng.randint(1, 6))]
    if rng.random() < 0.2:
        parts.append(parts[0])  # shared
    return nn.Sequential(nn.Linear(8, width), *parts, nn.Linear(width, CLASSES))


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, 1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2, amsgrad=True, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-3),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.05, max_iter=3),
    "tensor rate": lambda p: torch.optim.Adam(p, torch.tensor(1e-2), capturable=False, foreach=False),
    "wild": lambda p: torch.optim.SGD(p, 1e3),
}
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    "steps": lambda o: torch.optim.lr_scheduler.StepLR(o, 3),
    "warm-up": lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1, 1.0, 5),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=1),
}
