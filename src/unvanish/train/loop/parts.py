"""A loss by its parts, such as box, cls, dfl and mask of a detector: how much each adds to it.

Notable: a criterion that has parts keeps those of its last call in `last`; one stack brings them over from a
device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

NAMES = {"class": "cls"}  # as users write them


def read_parts(criterion: Any) -> dict[str, float]:
    """The parts of the last loss of a criterion, by name; empty if it has none."""
    last = getattr(criterion, "last", None)
    if not isinstance(last, Mapping) or not last:
        return {}
    values = torch.stack([value.float() for value in last.values()]).tolist()
    return {NAMES.get(name, name): value for name, value in zip(last, values, strict=True)}


def add_parts(total: dict[str, float], parts: Mapping[str, float], weight: float) -> None:
    """Add weighted parts to sums by name."""
    for name, value in parts.items():
        total[name] = total.get(name, 0.0) + weight * value


def list_columns(where: str, parts: Mapping[str, float]) -> dict[str, float]:
    """The columns of results.csv for the parts of a loss, in training or validation."""
    return {f"{where}/{name}_loss": value for name, value in parts.items()}
