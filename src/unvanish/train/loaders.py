"""Loaders of your own instead of a data YAML: `Model(net).train(data=Loaders(train, val))`.

Notable: a resumed run restores the random states of the epoch's start and skips the batches that were done,
so loaders that draw from the global generators continue bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Loaders:
    """Training batches (x, y), validation batches or None, and what the network must know of them."""

    train: Any
    val: Any = None
    task: str = "classify"
    facts: Mapping[str, Any] = field(default_factory=dict)
    names: Sequence[str] = ()
    problems: Sequence[Any] = ()
    preparation: Mapping[str, Any] = field(default_factory=dict)
    description: str = "loaders of your own"
