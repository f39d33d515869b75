"""Healthy designs, small, each as people write it: checked as it starts, and after a little training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import unvanish

Build = Callable[[], "Design"]


@dataclass
class Design:
    """A model, its batch and its loss, with the optimizer's rate and what follows each of its steps."""

    model: nn.Module
    batch: Any
    loss: Callable[..., Any]
    rate: float = 1e-3
    after: Callable[[], Any] = field(default=lambda: None)
    steps: int = 20


def list_loud(design: Design, optimizer: Any = None) -> list[str]:
    """What `check` says above a note."""
    found = unvanish.check(design.model, design.batch, design.loss, optimizer=optimizer)
    return [f"{f.code} {f.cause} @ {', '.join(f.sites[:3])}" for f in found.at_least("warning")]


def train(design: Design) -> Any:
    """Some real steps of Adam; its optimizer."""
    own = [p for p in design.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(own, lr=design.rate)
    x, y = design.batch if isinstance(design.batch, tuple) else (design.batch, None)
    for _ in range(design.steps):
        out = design.model(*x) if isinstance(x, tuple) else design.model(x)
        loss = design.loss(out) if y is None else design.loss(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        design.after()
    return optimizer


def stays_quiet(build: Build) -> None:
    """Nothing above a note, as it starts and after it has trained; the loss stays finite."""
    torch.manual_seed(0)
    design = build()
    assert list_loud(design) == [], "at the start"
    optimizer = train(design)
    assert list_loud(design, optimizer) == [], "after some steps"


def classes(count: int, several: int = 4) -> Tensor:
    """Random labels."""
    return torch.randint(0, several, (count,))


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with activations between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])
