"""Learning rate, momentum and number of batches of every step.

Notable:
- The rate is a function of the step alone: nothing to save, nothing that drifts on resuming.
- Biases of a detector start their warm-up at 0.1 and come down to lr0, because they must learn at once how
  rare objects are; not with Adam, whose step length does not depend on the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from unvanish.train.arguments import Arguments
from unvanish.train.loop.record import Record

DETECTORS = ("detect", "segment")
BIASES = 0.1  # first rate of a detector's biases, with SGD


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a share of lr0 at a step of `total`, after `warmup` rising steps."""

    curve: Callable[[float], float]
    total: int
    warmup: int

    def __call__(self, step: float) -> float:
        """The factor of the step that follows `step` steps."""
        return self.curve(min(1.0, step / max(1, self.total))) * self.warm_up(step)

    def warm_up(self, step: float) -> float:
        """The progress of the warm-up at that step, 1 when it is over."""
        return min(1.0, (step + 1) / (self.warmup + 1))


@dataclass
class Rates:
    """What every step of a run takes: learning rate, momentum, batches."""

    arguments: Arguments
    rate: float  # after the warm-up
    biases: float  # of the biases, when the warm-up starts
    momentum: float  # after the warm-up
    batches: int  # of an epoch
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self.plan(self.arguments.epochs)

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return count_steps(self.arguments, self.batches)

    def count_all(self, epochs: int) -> int:
        """Optimizer steps of `epochs` epochs; with `ramp` those of the warm-up are smaller."""
        warm, total = self.schedule.warmup * self.arguments.steps_of, 0
        for epoch in range(epochs):
            done, end = epoch * self.batches, (epoch + 1) * self.batches
            if not self.arguments.ramp or done >= warm:
                return total + (epochs - epoch) * self.steps
            while done < end:
                done += count_batches(self.arguments, done, warm)
                total += 1
        return total

    def plan(self, epochs: int) -> None:
        """Fit the schedule to a run of `epochs` epochs."""
        self.schedule = build_schedule(self.arguments, epochs, self.steps)

    def count_batches(self, record: Record) -> int:
        """Batches of the next step."""
        warm = self.schedule.warmup * self.arguments.steps_of
        return count_batches(self.arguments, self._done(record), warm)

    def set(self, optimizer: Any, record: Record) -> None:
        """Give the optimizer the learning rate and the momentum of the next step."""
        a, schedule, done = self.arguments, self.schedule, self._done(record)
        # with `ramp`, steps differ in size, so the batches say how far the run is
        step = done / a.steps_of if a.ramp else float(record.step)
        rate = self.rate * schedule(step)
        set_rate(optimizer, rate, rate + self.biases * (1 - schedule.warm_up(step)))
        if a.warmup_momentum is not None:
            warm = schedule.warmup * a.steps_of
            share = min(1.0, done / warm) if warm else 1.0
            set_momentum(optimizer, a.warmup_momentum + share * (self.momentum - a.warmup_momentum))

    def _done(self, record: Record) -> int:
        """Batches so far."""
        return record.epoch * self.batches + record.batch


def count_steps(arguments: Arguments, batches: int) -> int:
    """Optimizer steps of an epoch of `batches` batches, at least one."""
    return max(1, math.ceil(batches / arguments.steps_of))


def count_batches(arguments: Arguments, done: int, warm: float) -> int:
    """Batches of the step that starts when `done` are done, the first `warm` of which are warm-up."""
    if not arguments.ramp or done >= warm:
        return arguments.steps_of
    return max(1, round(1 + (arguments.steps_of - 1) * done / warm))


def choose_bias_rate(arguments: Arguments, task: str, optimizer: Any) -> float:
    """The rate at which the warm-up of biases starts."""
    if arguments.warmup_bias_lr is not None:
        return arguments.warmup_bias_lr
    return BIASES if task in DETECTORS and isinstance(optimizer, torch.optim.SGD) else 0.0


def build_schedule(arguments: Arguments, epochs: int, steps_an_epoch: int) -> Schedule:
    """The schedule of a run; its warm-up is at most a third of it."""
    total = epochs * steps_an_epoch
    warmup = min(round(arguments.warmup_epochs * steps_an_epoch), total // 3)
    return Schedule(build_curve(arguments.curve, arguments.lrf, arguments.milestones), total, warmup)


def build_curve(name: str, last: float, milestones: Sequence[float]) -> Callable[[float], float]:
    """The factor as a function of the share of the run that is done."""
    if name == "constant":
        return lambda done: 1.0
    if name == "step":
        return lambda done: 0.1 ** sum(done >= m for m in milestones)
    if name == "cosine":
        return lambda done: last + (1 - last) * (1 + math.cos(math.pi * done)) / 2
    return lambda done: 1 - (1 - last) * done


def set_rate(optimizer: Any, rate: float, of_biases: float) -> None:
    """Set the learning rate of every group; biases have their own."""
    for group in optimizer.param_groups:
        group["lr"] = of_biases if group.get("biases") else rate


def set_momentum(optimizer: Any, momentum: float) -> None:
    """Set the momentum of every group (beta1 of Adam)."""
    for group in optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum
