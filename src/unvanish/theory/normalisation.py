"""Normalisation: its effect on lengths and gradients, and why gradients explode without skips.

Notable: a normalisation divides by the deviation of what it reads, and the gradient with it. BatchNorm
removes the mean over samples, so after an activation the gain of ||d||^2 is <phi'^2> / Var phi >= 1: it grows
with depth for any weights (Yang et al. 2019). For ReLU it is pi / (pi - 1), .1916 nats of ||d|| per layer.
LayerNorm removes the mean over units, which is zero after random weights: its gain is <phi'^2> / <phi^2>.
"""

from __future__ import annotations

import math
from typing import Any

from unvanish.theory.meanfield import field


def batch_norm_gain(activation: str | Any, **settings: Any) -> float:
    """Nats of ||d|| per layer of linear, BatchNorm, activation: half of ln(<phi'^2> / Var phi) at q = 1."""
    maps = field(activation, **settings)
    return 0.5 * math.log(maps.slope(1.0) / (maps.power(1.0) - maps.average(1.0) ** 2))


def layer_norm_gain(activation: str | Any, *, before: bool = True, **settings: Any) -> float:
    """Nats of ||d|| per layer with a LayerNorm before the activation or (`before` False) after it.

    Before it: half of ln(<phi'^2> / <phi^2>); after it, the mean over units is removed too.
    """
    maps = field(activation, **settings)
    mean = 0.0 if before else maps.average(1.0) ** 2
    return 0.5 * math.log(maps.slope(1.0) / (maps.power(1.0) - mean))
