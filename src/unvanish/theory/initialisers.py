"""The weights and biases to start with, for an activation and a depth.

Notable:
- A function bounded on both sides has a critical point at every length; a short length makes it more linear,
  so correlations between samples change more slowly and a deeper net can be trained (Schoenholz et al. 2017).
  Length 1/4 is used up to a hundred layers, 1/20 beyond.
- GELU and SiLU are stable only at long lengths, at which they are almost ReLU. Without a stable point,
  weights of unit backward gain at length 1 are used, without bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from unvanish.theory.activations import Curve
from unvanish.theory.meanfield import Field, field

DEEP = 100
LONG = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True)
class Start:
    """Weights of variance sw^2/fan_in, biases of variance sb^2; they keep length q and power <phi^2>_q."""

    sw: float
    sb: float
    q: float
    power: float
    critical: bool


def start(activation: str | Curve | Any, depth: int = 10, **settings: Any) -> Start:
    """The start for a net of this activation and depth; "" is a linear layer."""
    if isinstance(activation, str):
        return _start(activation or "identity", depth > DEEP, tuple(sorted(settings.items())))
    return _choose(field(activation, **settings), depth > DEEP)


@lru_cache(maxsize=64)
def _start(activation: str, deep: bool, settings: tuple[tuple[str, Any], ...]) -> Start:
    return _choose(field(activation, **dict(settings)), deep)


def _choose(maps: Field, deep: bool) -> Start:
    if maps.phi.homogeneous:
        return Start(1 / math.sqrt(maps.slope(1.0)), 0.0, 1.0, maps.power(1.0), True)
    for q in (0.05 if deep else 0.25, *LONG):
        point = maps.critical(q)
        if point is not None and point.stability < 0.999:
            return Start(point.sw, point.sb, q, maps.power(q), True)
    return Start(1 / math.sqrt(maps.slope(1.0)), 0.0, 1.0, maps.power(1.0), False)
