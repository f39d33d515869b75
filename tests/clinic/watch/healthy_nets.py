"""Loops as they should be, of networks of all kinds."""

from __future__ import annotations

import torch
from tests.clinic.watch.loops import PLANS, STEPS, Open, clip, draw, fit, loop
from torch import Tensor, nn
from torch.nn import functional as F


@loop
def convolutions(watching: Open) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 5),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    fit(watching, model, optimizer, prepare=lambda x: F.pad(x, (0, 44)).view(-1, 1, 8, 8), steps=100)


class Residual(nn.Module):
    """A block whose second weight begins at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.a, self.b = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.gelu(self.a(self.norm(x))))


@loop
def zero_initialised_branches(watching: Open) -> None:
    model = nn.Sequential(nn.Linear(20, 64), *(Residual(64) for _ in range(4)), nn.Linear(64, 5))
    fit(watching, model, torch.optim.AdamW(model.parameters(), 1e-3), steps=100)


class Reader(nn.Module):
    """A recurrent classifier of sequences."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.core, self.head = kind(4, 32, batch_first=True), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x.view(len(x), 5, 4))[0][:, -1])


@loop
def recurrent(watching: Open) -> None:
    model = Reader(nn.RNN)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    fit(watching, model, optimizer, before_step=lambda _: clip(model, 1.0), steps=100)


@loop
def long_memory(watching: Open) -> None:
    model = Reader(nn.LSTM)
    fit(watching, model, torch.optim.Adam(model.parameters(), 1e-2), steps=100)


class Tokens(nn.Module):
    """A small transformer over the features."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(4, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True, norm_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.enter(x.view(len(x), 5, 4))).mean(1))


@loop
def transformer(watching: Open) -> None:
    model = Tokens()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    plan = PLANS.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 20))
    fit(watching, model, optimizer, after=lambda _: plan.step(), steps=100)


@loop
def autoencoder(watching: Open) -> None:
    x = draw()[0] @ torch.randn(20, 64) / 4
    model = nn.Sequential(
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 8),
        nn.ReLU(),
        nn.Linear(8, 32),
        nn.ReLU(),
        nn.Linear(32, 64),
    )
    optimizer, loss = torch.optim.Adam(model.parameters(), 3e-3), nn.MSELoss()
    with watching(model, optimizer, loss):
        for _ in range(STEPS):
            batch = x[torch.randint(0, len(x), (64,))]
            optimizer.zero_grad()
            loss(model(batch), batch).backward()
            optimizer.step()


@loop
def sparse_embedding(watching: Open) -> None:
    model = nn.Sequential(nn.EmbeddingBag(500, 16, sparse=True), nn.Linear(16, 5))
    optimizer, loss = torch.optim.SGD(model.parameters(), 0.5), nn.CrossEntropyLoss()
    label = torch.arange(500) % 5
    with watching(model, optimizer, loss):
        for _ in range(STEPS):
            word = torch.randint(0, 500, (64, 1))
            optimizer.zero_grad()
            loss(model(word), label[word[:, 0]]).backward()
            optimizer.step()
