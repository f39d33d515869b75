"""A network's operations as plain data: steps on numbered tensors, for the theory to follow.

Notable: no weights are kept; a layer is described by the squared weights of its taps, a norm by its gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

Shape = tuple[int, ...]


class Step(NamedTuple):
    """One operation: the tensors it reads and makes, their shapes, and the facts that the theory needs.

    `kind`: torch's name for it; `facts`: "taps" (squared weights by position), "bias_power", "bias_mean",
    "geometry" for layers; "settings", "peak" for activations; "gain", "shift", "eps" for norms; and so on.
    """

    kind: str
    family: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    reads: tuple[Shape, ...]
    makes: tuple[Shape, ...]
    facts: Mapping[str, Any] = MappingProxyType({})
    path: str = ""


@dataclass(frozen=True)
class Program:
    """Steps in order, the tensors that come from the batch, and those that the model returns."""

    steps: tuple[Step, ...]
    inputs: Mapping[int, Shape]
    outputs: Mapping[int, Shape]
    batch: int = 1
