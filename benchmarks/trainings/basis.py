"""What the trainings share: the data, an ordinary loop, and the proof that something was learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unvanish.lab.data import open_data

Open = Callable[..., Any]  # (model, optimizer, loss, **options): the watch


@dataclass(frozen=True)
class Learned:
    """What came out: a figure, and the value that it must reach; `least`: it may not be below, else above."""

    what: str
    value: float
    wanted: float
    least: bool = True

    @property
    def reached(self) -> bool:
        """Whether it did learn."""
        return self.value >= self.wanted if self.least else self.value <= self.wanted


Training = Callable[[Open], Learned]
TRAININGS: dict[str, Training] = {}
PLANS = torch.optim.lr_scheduler


def training(run: Training) -> Training:
    """Note a training by its name."""
    TRAININGS[run.__name__] = run
    return run


@cache
def read_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Handwritten digits: pictures and labels to train on, (n, 1, 8, 8) and (n,), and others to test with."""
    state = torch.get_rng_state()
    found = open_data("digits.yaml", imgsz=8, seed=0)
    assert found.val is not None
    parts = [list(loader) for loader in (found.train, found.val)]
    torch.set_rng_state(state)
    (x, y), (u, v) = ((torch.cat([b[0] for b in p]), torch.cat([b[1] for b in p])) for p in parts)
    return x, y, u, v


def pick(*data: Tensor, steps: int, size: int = 64) -> Iterator[tuple[Tensor, ...]]:
    """Batches in a random order, epoch by epoch."""
    order: list[int] = []
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(len(data[0])).tolist()
        chosen, order = order[:size], order[size:]
        yield tuple(d[chosen] for d in data)


def pick_digits(steps: int, size: int = 64) -> Iterator[tuple[Tensor, ...]]:
    """Batches of digits."""
    x, y, _, _ = read_digits()
    return pick(x, y, steps=steps, size=size)


def fit(
    watching: Open,
    model: nn.Module,
    optimizer: Any,
    batches: Iterable[tuple[Tensor, ...]],
    measure: Callable[..., Tensor] | None = None,
    *,
    plan: Any = None,
    clip: float | None = None,
    after: Callable[[int], None] = lambda step: None,
    **options: Any,
) -> list[float]:
    """An ordinary loop; the losses. `measure`: the loss of a batch, cross-entropy of the model's output."""
    measure = measure or (lambda x, y: F.cross_entropy(model(x), y))
    losses = []
    with watching(model, optimizer, None, **options):
        for step, batch in enumerate(batches):
            optimizer.zero_grad()
            loss = measure(*batch)
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if plan is not None:
                plan.step()
            after(step)
            losses.append(loss.item())
    return losses


@torch.no_grad()
def score(model: Callable[[Tensor], Tensor], wanted: float = 0.86) -> Learned:
    """The accuracy on digits that were not trained on."""
    _, _, u, v = read_digits()
    if isinstance(model, nn.Module):
        model.eval()
    return Learned("accuracy", float((model(u).argmax(1) == v).float().mean()), wanted)


def compare(losses: list[float], share: float) -> Learned:
    """The mean loss of the last steps over that of the first ones; a part of it is wanted."""
    count = max(1, len(losses) // 20)
    first, last = losses[: min(count, 5)], losses[-count:]
    return Learned("loss, last / first", (sum(last) / len(last)) / (sum(first) / len(first)), share, False)


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.ReLU, norm: Any = None) -> nn.Sequential:
    """Linear layers with activations between them."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(a, b))
        if i < len(widths) - 2:
            layers += [norm(b)] if norm is not None else []
            layers.append(act())
    return nn.Sequential(*layers)


def flat_mlp(*widths: int, **options: Any) -> nn.Sequential:
    """The same for pictures."""
    return nn.Sequential(nn.Flatten(), *mlp(*widths, **options))


def warm_up(optimizer: Any, steps: int, whole: int) -> Any:
    """A linear warm-up, then half a cosine down to zero."""
    first = PLANS.LinearLR(optimizer, 0.01, 1.0, steps)
    rest = PLANS.CosineAnnealingLR(optimizer, max(1, whole - steps))
    return PLANS.SequentialLR(optimizer, [first, rest], [steps])
