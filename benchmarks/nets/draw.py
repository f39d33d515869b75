"""Random choices from one seed: a `Draw` gives them, and `seeded` holds torch to the same seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class Draw(random.Random):
    """`random.Random` with a few distributions more."""

    def pick(self, *options: T) -> T:
        """One of the options."""
        return self.choice(options)

    def weighted(self, options: Sequence[tuple[float, T]]) -> T:
        """One of (weight, option)."""
        return self.choices([o for _, o in options], [w for w, _ in options])[0]

    def log_uniform(self, low: float, high: float) -> float:
        """A number whose logarithm is uniform."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def log_integer(self, low: int, high: int) -> int:
        """An integer in [low, high] whose logarithm is about uniform."""
        return min(high, max(low, int(self.log_uniform(low, high + 1))))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability


@contextmanager
def seeded(key: str) -> Iterator[Draw]:
    """A `Draw` from this key, with torch seeded from it too and put back afterwards."""
    draw = Draw(key)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw.getrandbits(62))
        yield draw
