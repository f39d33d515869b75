"""What the generator measures of a net by itself, in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """Plain autograd measurements; logarithms are natural, lists run from the input side to the loss side."""

    loss: float
    gradient: tuple[float, ...] = ()  # ln ||dL/dh|| along the stream
    rms: tuple[float, ...] = ()  # root mean square of h along the stream
    spread: tuple[float, ...] = ()  # ||h - mean over the batch|| / ||h|| along the stream
    saturated: tuple[float, ...] = ()  # share of units with |slope| < .05 of the largest slope
    dead: tuple[float, ...] = ()  # share of units whose slope is 0 for the whole batch
    slope: tuple[float, ...] = ()  # mean squared slope
    time: tuple[float, ...] = ()  # ln ||dL/dx_t||, first step first
    entropy: tuple[float, ...] = ()  # attention entropy / ln T
    logit: tuple[float, ...] = ()  # largest absolute attention logit
    starvation: tuple[float, ...] = ()  # ||g_q|| / ||g_v||
    tokens: tuple[float, ...] = ()  # mean cosine between tokens entering the attention
    output: float = 0.0  # largest absolute output
    output_gradient: float = -math.inf  # ln ||dL/d output||
    missing: frozenset[str] = frozenset()  # trainable parameters with no gradient
    zero: frozenset[str] = frozenset()  # trainable parameters whose gradient is exactly 0
    broken: frozenset[str] = frozenset()  # parameters whose gradient is not finite
    norms: Mapping[str, float] = field(default_factory=dict)  # ln ||dL/dp|| of the others
    distinct: Mapping[str, float] = field(
        default_factory=dict
    )  # share of distinct rows in weight and gradient
    cosine: tuple[float, ...] = ()  # mean cosine between samples along the stream
    executed: frozenset[str] = frozenset()  # modules whose forward ran

    @property
    def ratio(self) -> float:
        """Log of the gradient at the input side over the loss side: negative where it vanishes."""
        return self.gradient[0] - self.gradient[-1] if len(self.gradient) > 1 else 0.0

    @property
    def swing(self) -> float:
        """The largest |ln ratio| between any two states of the stream."""
        return max(self.gradient) - min(self.gradient) if len(self.gradient) > 1 else 0.0

    @property
    def through_time(self) -> float:
        """Log of the gradient at the first steps over the last steps."""
        if len(self.time) < 4:
            return 0.0
        return sum(self.time[:2]) / 2 - sum(self.time[-2:]) / 2

    @property
    def finite(self) -> bool:
        """True when the loss and every gradient are finite."""
        return math.isfinite(self.loss) and not self.broken
