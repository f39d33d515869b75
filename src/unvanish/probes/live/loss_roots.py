"""The number that a backward begins at, without what only scales it: a loss scale, the share of a batch.

Notable: the factors are read off the first nodes of the graph. A constant power of two of 256 and more is a
loss scale; one over a whole number may be an accumulation's share, which only the count of backwards tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unvanish.probes.saved import find_saved

OWN = (
    "NllLossBackward0",
    "NllLoss2DBackward0",
    "NllLossNdBackward0",
    "MseLossBackward0",
    "SmoothL1LossBackward0",
    "HuberLossBackward0",
    "BinaryCrossEntropyBackward0",
    "BinaryCrossEntropyWithLogitsBackward0",
)  # nodes of losses that no training raises, means or sums
FACTORS = ("MulBackward0", "DivBackward0")
DEEP = 4  # factors, one on the other
LEAST = 256.0  # of a loss scale
SHARES = 4096  # parts of a batch, at most


@dataclass(slots=True)
class LossRoot:
    """A loss as its backward began: its value, a tensor on a device; log2 of its scale; its share, as 1/k."""

    value: Any
    scale_log2: int = 0
    parts: int = 1


def read_root(root: Tensor, known_scale: float, find: Callable[[Tensor], list[float]]) -> LossRoot:
    """The loss at the root of a backward; `known_scale`: of the scaler in use, 1 without one.

    `find`: finds what it was multiplied by, as `find_factors` does.
    """
    scale, parts = _read_scale(known_scale) if known_scale != 1.0 else 0, 1
    on_device, plain = root.device.type != "cpu", type(root.grad_fn).__name__ not in FACTORS
    if plain and not scale and not on_device:
        return LossRoot(root.item())
    for factor in () if plain else find(root):
        if not scale and factor >= LEAST and math.frexp(factor)[0] == 0.5:
            scale = _read_scale(factor)
        elif parts == 1 and factor < 1 and abs(round(1 / factor) * factor - 1) < 1e-6 and 1 / factor < SHARES:
            parts = round(1 / factor)
    value: Any = root.detach().reshape(()) if on_device else root.item()
    value = value.float() if on_device and value.dtype.itemsize < 4 else value
    return LossRoot(value / 2.0**scale if scale else value, scale, parts)


def find_factors(root: Tensor) -> list[float]:
    """The constants on the CPU that the loss was multiplied by, the last one first."""
    found: list[float] = []
    node: Any = root.grad_fn
    for _ in range(DEEP):
        name = type(node).__name__
        below = [b for b, _ in node.next_functions if b is not None] if name in FACTORS else []
        if len(below) != 1:
            break
        factor = _read_factor(node, name)
        if factor is None:
            break
        found.append(factor)
        node = below[0]
    return found


def read_pull(root: Tensor) -> float | None:
    """The gradient that arrives at the loss of torch's own below the root; None if it is no such loss."""
    node: Any = root.grad_fn
    pull = 1.0
    for _ in range(DEEP):
        name = type(node).__name__
        if name in OWN:
            return pull
        below = [b for b, _ in getattr(node, "next_functions", ()) if b is not None]
        factor = -1.0 if name == "NegBackward0" else _read_constant(node, name) if name in FACTORS else None
        if len(below) != 1 or factor is None:
            return None
        pull *= factor
        node = below[0]
    return None


def _read_factor(node: Any, name: str) -> float | None:
    """A positive constant of a product or a quotient; None if it is another, or cannot be read."""
    constant = _read_constant(node, name)
    return constant if constant is not None and constant > 0 else None


def _read_constant(node: Any, name: str) -> float | None:
    """The constant of a product or a quotient; None if it cannot be read without waiting."""
    other = find_saved(node, "_saved_other")
    if other is None and name == "MulBackward0":
        other = find_saved(node, "_saved_self")
    if other is None or other.numel() != 1 or other.device.type != "cpu" or other.requires_grad:
        return None
    constant = float(other)
    if not constant:
        return None
    return 1 / constant if name == "DivBackward0" else constant


def _read_scale(value: float) -> int:
    return round(math.log2(value)) if value > 0 and math.isfinite(value) else 0
