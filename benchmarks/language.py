"""A small language, and small language models of many designs that learn it within a second."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY, LENGTH = 32, 16


class Experts(nn.Module):
    """Four experts; each token goes to one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 4)
        self.experts = nn.ModuleList([nn.Linear(width, width) for _ in range(4)])
        self.balance = torch.zeros(())  # Fedus et al. 2022; for who adds it to the loss

    def forward(self, x: Tensor) -> Tensor:
        share = self.gate(x).softmax(-1)
        weights, chosen = share.max(-1)
        load = nn.functional.one_hot(chosen, 4).flatten(0, 1).float().mean(0)
        self.balance = 4 * (load * share.flatten(0, 1).mean(0)).sum()
        every = torch.stack([torch.relu(expert(x)) for expert in self.experts], -2)  # (B, T, 4, D)
        index = chosen[..., None, None].expand(*chosen.shape, 1, x.shape[-1])
        return every.gather(-2, index).squeeze(-2) * weights[..., None]


@dataclass(frozen=True)
class Design:
    """How a model is built: pre-norm by default."""

    width: int = 32
    depth: int = 1
    heads: int = 4
    mixture: bool = False
    behind: bool = False  # norms behind the sums
    act: type[nn.Module] = nn.ReLU
    drop: float = 0.0
    tied: bool = False  # words and answers share their weights
    small: bool = False  # words and projections begin at a deviation of 0.02


class Block(nn.Module):
    """Attention and a feed-forward part."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        width = design.width
        self.heads, self.behind = design.heads, design.behind
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out, self.drop = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            nn.Dropout(design.drop),
        )
        self.wide: nn.Module = nn.Sequential(
            nn.Linear(width, 4 * width), design.act(), nn.Linear(4 * width, width)
        )
        if design.mixture:
            self.wide = Experts(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.behind:
            x = self.first(x + self.drop(self.attend(x)))
            return self.second(x + self.drop(self.wide(x)))
        x = x + self.drop(self.attend(self.first(x)))
        return x + self.drop(self.wide(self.second(x)))

    def attend(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, d))


class Language(nn.Module):
    """Embeddings, blocks, a head."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        width = design.width
        self.words, self.places = nn.Embedding(VOCABULARY, width), nn.Parameter(torch.zeros(LENGTH, width))
        self.blocks = nn.ModuleList(Block(design) for _ in range(design.depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY)
        if design.small:
            for module in self.modules():
                if isinstance(module, (nn.Linear, nn.Embedding)):
                    nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)
        self.scale = 1.0
        if design.behind and (design.tied or design.small):  # Vaswani et al. 2017
            self.scale = width**0.5
            nn.init.normal_(self.words.weight, std=1 / self.scale)
        elif design.tied:
            nn.init.normal_(self.words.weight, std=0.02)
        if design.tied:
            self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.scale * self.words(tokens) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Text:
    """Sentences in which a word depends on the last one and on the third last."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.table = 2.5 * torch.randn(2, VOCABULARY, VOCABULARY, generator=self.generator)

    def draw(self, size: int) -> Tensor:
        """Words, (size, LENGTH + 1)."""
        made = self.generator
        words = [torch.randint(0, VOCABULARY, (size,), generator=made) for _ in range(3)]
        for _ in range(LENGTH - 2):
            odds = (self.table[0][words[-1]] + self.table[1][words[-3]]).softmax(-1)
            words.append(torch.multinomial(odds, 1, generator=made)[:, 0])
        return torch.stack(words, 1)


OPTIMIZERS: dict[str, tuple[Callable[..., Any], float, float]] = {  # made how, lowest and highest log10 rate
    "adam": (torch.optim.Adam, -3.2, -2.2),
    "adamw": (lambda p, r: torch.optim.AdamW(p, r, betas=(0.9, 0.95), weight_decay=0.1), -3.2, -2.2),
    "sgd": (lambda p, r: torch.optim.SGD(p, r, momentum=0.9), -1.7, -0.9),
    "rmsprop": (torch.optim.RMSprop, -3.3, -2.5),
    "nadam": (torch.optim.NAdam, -3.2, -2.3),
    "adagrad": (torch.optim.Adagrad, -2.0, -1.3),
    "adafactor": (torch.optim.Adafactor, -2.2, -1.5),
}


def draw_schedule(rng: random.Random, steps: int) -> Callable[[int], float]:
    """The factor on the rate at each step."""
    warm = rng.choice([1, 20, 50])
    kind = rng.choice(["constant", "cosine", "linear", "steps", "restarts", "root"])
    shapes: dict[str, Callable[[int], float]] = {
        "constant": lambda s: 1.0,
        "cosine": lambda s: 0.5 * (1 + math.cos(math.pi * s / steps)),
        "linear": lambda s: 1 - s / steps,
        "steps": lambda s: 0.1 ** ((s > 0.6 * steps) + (s > 0.85 * steps)),
        "restarts": lambda s: 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (s % 80) / 80)),
        "root": lambda s: min(1.0, (60 / (s + 1)) ** 0.5),
    }
    return lambda s: min(1.0, (s + 1) / warm) * shapes[kind](s)


def draw_design(rng: random.Random) -> Design:
    """A healthy one."""
    return Design(
        rng.choice([16, 24, 32]),
        rng.choice([1, 1, 2, 3]),
        rng.choice([2, 4]),
        rng.random() < 0.2,
        rng.random() < 0.2,
        rng.choice([nn.ReLU, nn.GELU, nn.SiLU]),
        rng.choice([0.0, 0.0, 0.1]),
        rng.random() < 0.3,
        rng.random() < 0.3,
    )
