"""Loaders of your own in place of a data YAML: `Model(net).train(data=Loaders(train, val))`.

Notable: whatever they draw from the global generators goes on bit by bit after a resume, because the loop
remembers the random states at the epoch's start and skips the batches that were done.
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
