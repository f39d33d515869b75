"""Normalisation: what it makes of lengths and gradients, and why without skips it explodes.

Notable: a normalisation divides by the deviation of what it reads, and the gradient with it. BatchNorm
removes the mean over samples, so behind an activation the gain of ||d||^2 is <phi'^2> / Var phi >= 1: the
deeper, the larger, whatever the weights (Yang et al. 2019). For ReLU it is pi / (pi - 1), .1916 nats of ||d||
a layer. LayerNorm removes the mean over units, which random weights have made zero: there the gain is
<phi'^2> / <phi^2>.
"""

from __future__ import annotations

import math
from typing import Any

from unvanish.theory.meanfield import field


def batch_norm_gain(activation: str | Any, **settings: Any) -> float:
    """Nats of ||d|| a layer of linear, BatchNorm, activation: half of ln(<phi'^2> / Var phi) at q = 1."""
    maps = field(activation, **settings)
    return 0.5 * math.log(maps.slope(1.0) / (maps.power(1.0) - maps.average(1.0) ** 2))


def layer_norm_gain(activation: str | Any, *, before: bool = True, **settings: Any) -> float:
    """Nats of ||d|| a layer with a LayerNorm, in front of the activation or (`before` False) behind it.

    In front of it: half of ln(<phi'^2> / <phi^2>); behind it the mean over units is there to be removed.
    """
    maps = field(activation, **settings)
    mean = 0.0 if before else maps.average(1.0) ** 2
    return 0.5 * math.log(maps.slope(1.0) / (maps.power(1.0) - mean))
