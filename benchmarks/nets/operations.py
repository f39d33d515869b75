"""Small wrappers that put one more operation behind a module: cuts, dead ends, NaNs, endings, spare parts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

Operation = Callable[[Tensor], Tensor]


class After(nn.Module):
    """A module followed by a plain function, as an operation written in somebody's forward."""

    def __init__(self, inner: nn.Module, operation: Operation) -> None:
        super().__init__()
        self.inner, self.operation = inner, operation

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        return self.operation(self.inner(*arguments, **keywords))


class WithoutGraph(nn.Module):
    """A module called under `torch.no_grad()`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *arguments: Any) -> Any:
        with torch.no_grad():
            return self.inner(*arguments)


class Bypass(nn.Module):
    """A module that is built and registered, and never called."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x


class Spare(nn.Module):
    """A net with a part that its forward never uses."""

    def __init__(self, net: nn.Module, spare: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.net, self.spare = net, spare

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


class Narrow(nn.Module):
    """A normalisation over one element: LayerNorm(1) behind a bottleneck of one unit."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.squeeze = inner, nn.Linear(width, 1)
        self.norm, self.widen = nn.LayerNorm(1), nn.Linear(1, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.widen(self.norm(self.squeeze(self.inner(x))))  # type: ignore[no-any-return]


class Scorer(nn.Module):
    """Attention pooling whose softmax runs over the wrong dimension, of size 1: every weight is 1."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.score = inner, nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        state = self.inner(x)
        return state * self.score(state).softmax(-1)  # type: ignore[no-any-return]


class Ending(nn.Module):
    """A net with a last non-linearity, as a module or as a call."""

    def __init__(self, net: nn.Module, kind: str, module: bool) -> None:
        super().__init__()
        self.net, self.kind = net, kind
        self.last = (
            {"softmax": nn.Softmax(-1), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh()}[kind] if module else None
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.net(x)
        if self.last is not None:
            return self.last(x)  # type: ignore[no-any-return]
        return (
            x.softmax(-1)
            if self.kind == "softmax"
            else torch.sigmoid(x)
            if self.kind == "sigmoid"
            else torch.tanh(x)
        )


class WithLoss(nn.Module):
    """A net that takes its batch as keywords and returns an object with its own `.loss`."""

    def __init__(self, net: nn.Module, loss: Any, factor: float = 1.0) -> None:
        super().__init__()
        self.net, self.criterion, self.factor = net, loss, factor

    def forward(self, x: Tensor, y: Tensor) -> SimpleNamespace:
        logits = self.net(x)
        return SimpleNamespace(loss=self.factor * self.criterion(logits, y), logits=logits)


def through_numpy(x: Tensor) -> Tensor:
    """A round trip through NumPy."""
    return torch.from_numpy(x.detach().numpy().copy())


def through_list(x: Tensor) -> Tensor:
    """A round trip through Python numbers."""
    return torch.tensor(x.tolist(), dtype=x.dtype)


def masked_mean(x: Tensor) -> Tensor:
    """Adds a mean over an empty mask: 0/0."""
    mask = torch.zeros_like(x)
    return x + (x * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)


def masked_softmax(x: Tensor) -> Tensor:
    """Weights by a softmax whose mask leaves nothing in the first row."""
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[0] = True
    return x * x.masked_fill(mask, -torch.inf).softmax(-1)


def log_of_zero(x: Tensor) -> Tensor:
    """A logarithm of what a ReLU has set to 0."""
    return torch.log(torch.relu(x)) * 0.1


def overflow(x: Tensor) -> Tensor:
    """An exponential beyond the range of the format, then its own sum: inf / inf."""
    top = torch.exp(x * 400 + 800)
    return top / top.sum(-1, keepdim=True)


def guarded_root(x: Tensor) -> Tensor:
    """The `where` that guards the value but not the derivative of a square root."""
    return torch.where(x > 0, torch.sqrt(x), torch.zeros_like(x))


def spread_of_constants(x: Tensor) -> Tensor:
    """Adds the standard deviation of equal numbers: a square root of exactly 0."""
    return x + (0.0 * x + 1.0).std(-1, keepdim=True)


def angle_at_one(x: Tensor) -> Tensor:
    """Adds an arc cosine at 1 or -1, where its slope is infinite."""
    return x + 0.1 * torch.acos(torch.tanh(1e4 * x))


def distance_to_self(x: Tensor) -> Tensor:
    """Adds the distance of every row to itself: a square root of exactly 0."""
    return x + (x - x.detach().clone()).pow(2).sum(-1, keepdim=True).pow(0.5)
