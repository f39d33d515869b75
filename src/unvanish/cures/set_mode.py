"""Sets a model to training mode, in which its normalisations use the batch and its dropouts drop.

What it does

`model.train()` where the whole model is in evaluation mode, else the same for the normalisations named. It
must be called again after every `model.eval()` of the training loop.

Safety

It changes the function: a new BatchNorm has no statistics yet, and in evaluation mode it does not normalise.

Reference: Ioffe and Szegedy 2015.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.names import module_expression, split_label
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery, descendants

SAFETY = "retrain"


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Set the model, or the modules at and below `targets`, to training mode."""
    paths = [""] if not surgery.model.training else list(_list_paths(targets))
    every = {id(m): (name, m) for path in paths for name, m in _find_modules(surgery, path)}
    idle = [(name, module) for name, module in every.values() if not module.training]
    if not idle:
        raise SurgeryError("set-mode: everything is in training mode")
    for name, module in idle:
        surgery.assign(module, "training", True, name or "(model)", "training mode")


def _list_paths(targets: Iterable[str]) -> Iterator[str]:
    """The paths of modules, from labels of their calls."""
    for target in targets:
        path = split_label(target)[0]
        yield path.removesuffix("batch_norm").removesuffix(".") if path.endswith("batch_norm") else path


def _find_modules(surgery: Surgery, path: str) -> Iterator[tuple[str, nn.Module]]:
    surgery.module(path)  # refuses what is not there
    return descendants(surgery.model, path)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    paths = dict.fromkeys(_list_paths(remedy.targets)) or {"": None}
    if "(model)" in paths or not remedy.targets:
        paths = {"": None}
    why = "before the loop, and after every model.eval()"
    return [f"{module_expression(path)}.train()  # {why}" for path in paths]


def case() -> tuple[Case, Remedy]:
    """A new net with BatchNorm, in evaluation mode."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).eval()
    batch = 30 * torch.randn(16, 8), torch.randint(0, 3, (16,))
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy("set-mode", (), "a new BatchNorm", "retrain")
