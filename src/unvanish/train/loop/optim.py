"""Optimizers and their parameter groups.

Notable:
- Weights decay; biases and scales of norms do not (as in YOLO; He et al. 2019, "Bag of Tricks", 3.1).
- `auto`: AdamW for short runs and for text and sequences, SGD with momentum for long runs on images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unvanish.train.arguments import Arguments
from unvanish.train.errors import TrainError
from unvanish.train.loop.schedule import DETECTORS

LONG = 10_000  # optimizer steps from which SGD pays off on images
IMAGES = ("classify", "detect", "segment")
RATES = {"sgd": 0.05, "rmsprop": 1e-3}
ADAMS: dict[str, type[Any]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
}
RATES |= dict.fromkeys(ADAMS, 1e-3)


def choose(arguments: Arguments, task: str, steps: int, usual: float | None = None) -> tuple[str, float]:
    """The optimizer's name and its learning rate; `usual`: the task's own rate for AdamW."""
    name, own = arguments.optimizer, RATES
    if name == "auto":
        name = "sgd" if task in IMAGES and steps > LONG else "adamw"
    if usual is not None:
        own = {**RATES, "sgd": 0.01, **dict.fromkeys(ADAMS, usual)}
    return name, own[name] if arguments.lr0 is None else arguments.lr0


def choose_momentum(arguments: Arguments, task: str) -> float:
    """Momentum of SGD or beta1 of Adam: 0.9, or 0.937 for a detector whose optimizer is named."""
    if arguments.momentum is not None:
        return arguments.momentum
    return 0.937 if task in DETECTORS and arguments.optimizer != "auto" else 0.9


def scale_decay(arguments: Arguments) -> float:
    """The weight decay; with a nominal batch, in proportion to the samples of a step."""
    if arguments.nbs is None:
        return arguments.weight_decay
    return arguments.weight_decay * arguments.batch * arguments.steps_of / arguments.nbs


def group_parameters(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """The trainable parameters: weights of two dimensions or more, which decay; biases; the rest."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise TrainError("no parameter trains: every layer is frozen; give freeze a smaller number")
    norms = {id(p) for m in model.modules() if "Norm" in type(m).__name__ for p in m.parameters(False)}
    weights = [p for p in named.values() if p.ndim > 1 and id(p) not in norms]
    rest = {name: p for name, p in named.items() if p.ndim <= 1 or id(p) in norms}
    biases = [p for name, p in rest.items() if name.rpartition(".")[2].startswith("bias")]
    known = {id(p) for p in biases}
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": decay, "biases": False},
        {"params": biases, "weight_decay": 0.0, "biases": True},
        {"params": [p for p in rest.values() if id(p) not in known], "weight_decay": 0.0, "biases": False},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module, arguments: Arguments, task: str, steps: int, usual: float | None = None
) -> torch.optim.Optimizer:
    """The optimizer of a run of `steps` steps; `usual` as for `choose`."""
    name, rate = choose(arguments, task, steps, usual)
    groups, momentum = group_parameters(model, scale_decay(arguments)), choose_momentum(arguments, task)
    if name == "sgd":
        return torch.optim.SGD(groups, rate, momentum, nesterov=arguments.nesterov and momentum > 0)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, rate, momentum=momentum)
    made: torch.optim.Optimizer = ADAMS[name](groups, rate, betas=(momentum, arguments.beta2))
    return made
