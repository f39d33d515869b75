"""The mean-field state of a tensor and of its gradient: a few numbers, and a map over positions.

Notable: a tensor is described by its power q (for images at every position), the cosines between samples and
between positions, and its mean; a gradient by ln||d||^2, its distribution over positions, and the cosine
between them. Logarithms throughout: ten thousand layers do not underflow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unvanish.theory.quadrature import Array

ONE = np.ones(())


@dataclass(frozen=True)
class Signal:
    """A tensor: `power` E h^2 by position (0-d if all are alike), cosines, and mean / rms.

    `samples`: cosine between two samples at one position; `positions`: between two positions (tokens, pixels)
    of one sample; `apart`: between positions of two samples. `squares`: for softmax weights the sum of their
    squares.
    """

    power: Array = field(default_factory=lambda: ONE)
    samples: float = 0.0
    positions: float = 0.0
    apart: float = 0.0
    mean: float = 0.0
    squares: float | None = None

    def __post_init__(self) -> None:
        """Clip cosines to [-1, 1] and powers to 0, which approximations may leave."""
        for name in ("samples", "positions", "apart", "mean"):
            object.__setattr__(self, name, min(1.0, max(-1.0, getattr(self, name))))
        object.__setattr__(self, "power", np.maximum(self.power, 0.0))

    @property
    def q(self) -> float:
        """The mean power over the positions."""
        return float(np.mean(self.power))

    def flat(self) -> Signal:
        """The same with the power averaged over positions."""
        return self if self.power.ndim == 0 else replace(self, power=np.asarray(self.q))

    def fit(self, shape: Sequence[int]) -> Signal:
        """The same if its map fits `shape` (B, C, *positions), else with the power averaged."""
        return self if self.power.shape == tuple(shape[2:]) else self.flat()

    def plus(self, power: float, mean: float = 0.0) -> Signal:
        """A bias added: the same number of this power at all samples and positions."""
        if not power:
            return self
        own = self.mean * math.sqrt(self.q)
        q = max(self.q + power + 2 * own * mean, 1e-300)
        common = power + 2 * own * mean
        a, b, c = ((self.q * x + common) / q for x in (self.samples, self.positions, self.apart))
        return Signal(self.power + common, a, b, c, (own + mean) / math.sqrt(q))

    def times(self, factor: float) -> Signal:
        """The same with its power multiplied."""
        return replace(self, power=self.power * factor, squares=None)


@dataclass(frozen=True)
class Pull:
    """A gradient: ln||d||^2 of one sample, its share by position (0-d: evenly), the cosine between positions.

    `winners`: the number of values of which the receiving unit was the largest (max pooling); `centred`: the
    gradient of softmax weights, which ignores what all keys have in common; `part`: the share of the elements
    that receive a gradient, if a selection lies above.
    """

    log: float = -math.inf
    share: Array = field(default_factory=lambda: ONE)
    alike: float = 0.0
    winners: int = 1
    centred: bool = False
    part: float = 1.0

    def times(self, factor: float) -> Pull:
        """The same with ||d||^2 multiplied."""
        return replace(self, log=self.log + math.log(factor) if factor > 0 else -math.inf)

    def plus(self, other: Pull) -> Pull:
        """The sum of two independent gradients."""
        if other.log == -math.inf:
            return self
        if self.log == -math.inf:
            return other
        top = max(self.log, other.log)
        a, b = math.exp(self.log - top), math.exp(other.log - top)
        if self.share.shape == other.share.shape:
            share = (a * self.share + b * other.share) / (a + b)
        else:
            share = self.share if self.share.ndim else other.share
        return Pull(top + math.log(a + b), share, (a * self.alike + b * other.alike) / (a + b))

    def at(self, shape: Sequence[int]) -> Array:
        """||d||^2 by position, relative to `log`; the sum is 1."""
        size = tuple(shape[2:])
        if self.share.shape == size:
            return self.share / max(float(self.share.sum()), 1e-300)
        return np.full(size, 1 / math.prod(size)) if size else ONE
