"""Optimizers and learning-rate schedules.

Notable:
- A weight decays, a bias or a norm's scale does not (so does YOLO; He et al. 2019, "Bag of Tricks", 3.1).
- The rate is a function of the step alone: nothing to save, nothing that drifts on resuming.
- `auto`: AdamW for short runs and for text and sequences, SGD with momentum for long runs on images.
- Biases of a detector begin their warm-up at 0.1 and come down to lr0, as it has to learn at once how rare
  objects are; not with Adam, whose steps are as long as the rate whatever the gradient.
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
DETECTORS = ("detect", "segment")
BIASES = 0.1  # where a detector's biases begin, with SGD
RATES = {"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3}


def chosen(arguments: Arguments, task: str, steps: int, usual: float | None = None) -> tuple[str, float]:
    """The optimizer's name and its learning rate; `usual`: what AdamW takes where the task knows better."""
    name, own = arguments.optimizer, RATES
    if name == "auto":
        name = "sgd" if task in IMAGES and steps > LONG else "adamw"
    if usual is not None:
        own = {**RATES, "sgd": 0.01, "adam": usual, "adamw": usual}
    return name, own[name] if arguments.lr0 is None else arguments.lr0


def momentum(arguments: Arguments, task: str) -> float:
    """Of SGD, or beta1 of Adam: 0.9, of a detector whose optimizer is named 0.937."""
    if arguments.momentum is not None:
        return arguments.momentum
    return 0.937 if task in DETECTORS and arguments.optimizer != "auto" else 0.9


def first_of_biases(arguments: Arguments, task: str, optimizer: Any) -> float:
    """The rate at which the warm-up of biases begins."""
    if arguments.warmup_bias_lr is not None:
        return arguments.warmup_bias_lr
    return BIASES if task in DETECTORS and isinstance(optimizer, torch.optim.SGD) else 0.0


def decay(arguments: Arguments) -> float:
    """The weight decay, in proportion to the samples of a step where a nominal batch is given."""
    if arguments.nbs is None:
        return arguments.weight_decay
    return arguments.weight_decay * arguments.batch * arguments.steps_of / arguments.nbs


def groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """The trainable parameters: weights of two dimensions or more, which decay, biases, the rest."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise TrainError("no parameter trains: every layer is frozen; give freeze a smaller number")
    norms = {id(p) for m in model.modules() if "Norm" in type(m).__name__ for p in m.parameters(False)}
    weights = [p for p in named.values() if p.ndim > 1 and id(p) not in norms]
    rest = {name: p for name, p in named.items() if p.ndim <= 1 or id(p) in norms}
    biases = [p for name, p in rest.items() if name.rpartition(".")[2].startswith("bias")]
    known = {id(p) for p in biases}
    made: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": decay, "biases": False},
        {"params": biases, "weight_decay": 0.0, "biases": True},
        {"params": [p for p in rest.values() if id(p) not in known], "weight_decay": 0.0, "biases": False},
    ]
    return [group for group in made if group["params"]]


def optimizer(
    model: nn.Module, arguments: Arguments, task: str, steps: int, usual: float | None = None
) -> torch.optim.Optimizer:
    """The optimizer of a run of so many steps; `usual` as for `chosen`."""
    name, rate = chosen(arguments, task, steps, usual)
    parts, kept = groups(model, decay(arguments)), momentum(arguments, task)
    if name == "sgd":
        return torch.optim.SGD(parts, rate, kept, nesterov=arguments.nesterov and kept > 0)
    if name == "rmsprop":
        return torch.optim.RMSprop(parts, rate, momentum=kept)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(parts, rate, betas=(kept, arguments.beta2))


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a share of lr0 at a step of `total`, after `warmup` rising steps."""

    curve: Callable[[float], float]
    total: int
    warmup: int

    def __call__(self, step: float) -> float:
        """The factor at the step that comes after `step` steps."""
        return self.curve(min(1.0, step / max(1, self.total))) * self.warmed(step)

    def warmed(self, step: float) -> float:
        """How far the warm-up is at that step, 1 when it is over."""
        return min(1.0, (step + 1) / (self.warmup + 1))


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


def set_rate(optimizer: Any, rate: float, of_biases: float) -> None:
    """Give every group the rate, the biases theirs."""
    for group in optimizer.param_groups:
        group["lr"] = of_biases if group.get("biases") else rate


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
