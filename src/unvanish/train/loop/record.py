"""The progress of a run and its results so far: plain values, saved with every checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unvanish.train.loop.parts import add_parts


@dataclass
class Sums:
    """Sums over the steps of an epoch, until its row is written."""

    loss: float = 0.0  # times samples
    samples: float = 0.0
    norm: float = 0.0  # ln of the gradients' norms
    steps: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)  # of the loss, times samples

    def add(self, loss: float, norm: float, samples: int, parts: Mapping[str, float]) -> None:
        """Add a step with a finite gradient."""
        self.loss += loss * samples
        add_parts(self.parts, parts, samples)
        self.samples += samples
        self.norm += math.log(norm) if norm > 0 else 0.0
        self.steps += 1

    @property
    def mean_loss(self) -> float:
        """The mean over the samples; NaN if no step was finite."""
        return self.loss / self.samples if self.samples else math.nan

    @property
    def mean_parts(self) -> dict[str, float]:
        """The means of the loss's parts over the samples; none if no step was finite."""
        return {name: value / self.samples for name, value in self.parts.items()} if self.samples else {}

    @property
    def mean_norm(self) -> float:
        """The geometric mean of the gradients' norms."""
        return math.exp(self.norm / self.steps) if self.steps else math.nan


@dataclass
class Record:
    """The position (epochs, batches and steps done), a row an epoch, the best epoch so far."""

    epochs: int
    epoch: int = 0
    batch: int = 0
    step: int = 0
    skipped: int = 0  # steps without a finite gradient
    streak: int = 0  # of these, the last in a row
    best: float = math.nan
    best_epoch: int = 0
    elapsed: float = 0.0  # seconds
    metrics: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    sums: Sums = field(default_factory=Sums)

    def judge(self, fitness: float, higher: bool) -> bool:
        """Note whether the epoch just ended is the best so far; without a fitness (NaN) it always is."""
        if fitness != fitness:
            return True
        better = self.best != self.best or (fitness > self.best if higher else fitness < self.best)
        if better:
            self.best, self.best_epoch = fitness, self.epoch
        return better

    def since_best(self) -> int:
        """Epochs since the best one; 0 if there is none yet."""
        return self.epoch - self.best_epoch if self.best_epoch else 0

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Record:
        """The inverse of `plain`."""
        return cls(**{**plain, "sums": Sums(**plain["sums"])})
