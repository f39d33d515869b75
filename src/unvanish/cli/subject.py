"""What MODEL and DATA on the command line name: a model to check, and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Batch:
    """A batch as `check` takes it, and sentences about what is assumed in it."""

    value: Any
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A model to check and what came with it: a batch, a loss, options of `check`.

    `origin`: the function, class or file that made it, for the lines of findings.
    `random_batch(size, seed, shape)` makes a batch that fits the model; shape None is the model's own.
    """

    name: str
    model: Any
    batch: Any = None
    loss: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    random_batch: Callable[[int, int, tuple[int, ...] | None], Batch] | None = None
    origin: Any = None
