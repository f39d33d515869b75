"""Optimizers and learning-rate schedules.

Notable:
- A weight decays, a bias or a norm's scale does not (so does YOLO; He et al. 2019, "Bag of Tricks", 3.1).
- The rate is a function of the step alone: nothing to save, nothing that drifts on resuming.
- `auto`: AdamW for short runs and for text and sequences, SGD with momentum for long runs on images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unvanish.train.arguments import Arguments
from unvanish.train.errors import TrainError

LONG = 10_000  # optimizer steps from which SGD pays on images
IMAGES = ("classify", "detect", "segment")
RATES = {"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3}


def chosen(arguments: Arguments, task: str, steps: int, usual: float | None = None) -> tuple[str, float]:
    """The optimizer's name and its learning rate; `usual`: what AdamW takes where the task knows better."""
    name, own = arguments.optimizer, RATES
    if name == "auto":
        name = "sgd" if task in IMAGES and steps > LONG else "adamw"
    if usual is not None:
        own = {**RATES, "sgd": 0.01, "adam": usual, "adamw": usual}
    return name, own[name] if arguments.lr0 is None else arguments.lr0


def decay(arguments: Arguments) -> float:
    """The weight decay, in proportion to the samples of a step where a nominal batch is given."""
    if arguments.nbs is None:
        return arguments.weight_decay
    return arguments.weight_decay * arguments.batch * arguments.steps_of / arguments.nbs


def groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """The trainable parameters, those with two dimensions or more with weight decay, the rest without."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise TrainError("no parameter trains: every layer is frozen; give freeze a smaller number")
    norms = {id(p) for m in model.modules() if "Norm" in type(m).__name__ for p in m.parameters(False)}
    weights = [p for p in parameters if p.ndim > 1 and id(p) not in norms]
    rest = [p for p in parameters if p.ndim <= 1 or id(p) in norms]
    made = [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in made if group["params"]]


def optimizer(
    model: nn.Module, arguments: Arguments, task: str, steps: int, usual: float | None = None
) -> torch.optim.Optimizer:
    """The optimizer of a run of so many steps; `usual` as for `chosen`."""
    name, rate = chosen(arguments, task, steps, usual)
    parts, momentum = groups(model, decay(arguments)), arguments.momentum
    if name == "sgd":
        nesterov = arguments.nesterov and momentum > 0
        return torch.optim.SGD(parts, rate, momentum, nesterov=nesterov)
    if name == "rmsprop":
        return torch.optim.RMSprop(parts, rate, momentum=momentum)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(parts, rate, betas=(momentum, arguments.beta2))


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a share of lr0 at a step of `total`, after `warmup` rising steps."""

    curve: Callable[[float], float]
    total: int
    warmup: int

    def __call__(self, step: float) -> float:
        """The factor at the step that comes after `step` steps."""
        factor = self.curve(min(1.0, step / max(1, self.total)))
        return factor * min(1.0, (step + 1) / (self.warmup + 1))


def schedule(arguments: Arguments, epochs: int, steps_an_epoch: int) -> Schedule:
    """The schedule of a run."""
    total = epochs * steps_an_epoch
    warmup = min(round(arguments.warmup_epochs * steps_an_epoch), total // 3)
    return Schedule(curve(arguments.curve, arguments.lrf, arguments.milestones), total, warmup)


def curve(name: str, last: float, milestones: Sequence[float]) -> Callable[[float], float]:
    """The factor as a function of the share of the run that is done."""
    if name == "constant":
        return lambda done: 1.0
    if name == "step":
        return lambda done: 0.1 ** sum(done >= m for m in milestones)
    if name == "cosine":
        return lambda done: last + (1 - last) * (1 + math.cos(math.pi * done)) / 2
    return lambda done: 1 - (1 - last) * done


def set_rate(optimizer: Any, rate: float) -> None:
    """Give every group the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def set_momentum(optimizer: Any, momentum: float) -> None:
    """Give every group the momentum (Adam: beta1)."""
    for group in optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


def batches_of_step(arguments: Arguments, done: int, warm: float) -> int:
    """How many batches the step takes that begins when `done` are, the first `warm` of which are warm-up."""
    if not arguments.ramp or done >= warm:
        return arguments.steps_of
    return max(1, round(1 + (arguments.steps_of - 1) * done / warm))
