"""The loops that the tests of a watch train: a problem, its batches, an ordinary classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Open = Callable[..., Any]  # (model, optimizer, loss, **options): the watch
LOOPS: dict[str, Callable[[Open], None]] = {}
STEPS = 150
PLANS = torch.optim.lr_scheduler


def loop(run: Callable[[Open], None]) -> Callable[[Open], None]:
    """Note a loop by its name."""
    LOOPS[run.__name__] = run
    return run


def draw(n: int = 512, width: int = 20, classes: int = 5) -> tuple[Tensor, Tensor]:
    """A problem that can be learned."""
    made = torch.Generator().manual_seed(7)
    x = torch.randn(n, width, generator=made)
    return x, (torch.tanh(x) @ torch.randn(width, classes, generator=made)).argmax(1)


def batches(steps: int = STEPS, size: int = 64, **options: int) -> Any:
    """Random batches of it."""
    x, y = draw(**options)
    for _ in range(steps):
        chosen = torch.randint(0, len(x), (size,))
        yield x[chosen], y[chosen]


def mlp(width: int = 20, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 64),
        nn.ReLU(),
        nn.LayerNorm(64),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )


def fit(
    watching: Open,
    model: nn.Module,
    optimizer: Any,
    *,
    prepare: Callable[[Tensor], Tensor] = lambda x: x,
    after: Callable[[int], None] = lambda step: None,
    before_step: Callable[[int], None] = lambda step: None,
    steps: int = STEPS,
) -> None:
    """An ordinary classifier's loop."""
    loss = nn.CrossEntropyLoss()
    with watching(model, optimizer, loss):
        for step, (x, y) in enumerate(batches(steps)):
            optimizer.zero_grad()
            loss(model(prepare(x)), y).backward()
            before_step(step)
            optimizer.step()
            after(step)


def clip(model: nn.Module, limit: float) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), limit)
