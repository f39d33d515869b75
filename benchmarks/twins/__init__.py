"""Sick networks with a task that can be learned, each beside its fixed twin: `twins()` has them by name.

Notable: a twin is one function of whether it is sick, so both sides differ in the fault alone. Tasks draw
fresh samples without end, so that nothing can be learned by heart (`tasks`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from benchmarks.twins.tasks import Task

Build = Callable[[bool], tuple[nn.Module, Any]]  # from whether it is sick to the model and its loss


@dataclass(frozen=True)
class Twin:
    """A kind of fault: how to build either side, what to learn, and the optimizer of its user.

    `optimizer`: from the model and whether it is sick. `curable`: whether a change of numbers, layers, loss
    or optimizer from outside can mend it; else a person must. `given`: `cure` gets the optimizer.
    """

    name: str
    kind: str
    build: Build
    task: Task
    optimizer: Callable[[nn.Module, bool], Any]
    curable: bool = True
    given: bool = False
    steps: int = 400

    def make(self, sick: bool, seed: int = 0) -> tuple[nn.Module, Any, Any]:
        """The model, its loss, and its optimizer."""
        torch.manual_seed(seed)
        model, loss = self.build(sick)
        return model, loss, self.optimizer(model, sick)


def adam(rate: float = 3e-3) -> Callable[[nn.Module, bool], Any]:
    """Adam over all parameters that ask for a gradient."""
    return lambda model, sick: torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)


def sgd(rate: float = 0.05, momentum: float = 0.9) -> Callable[[nn.Module, bool], Any]:
    """SGD with momentum over all parameters."""
    return lambda model, sick: torch.optim.SGD(model.parameters(), rate, momentum=momentum)


@cache
def twins() -> Mapping[str, Twin]:
    """Every twin by its name."""
    from benchmarks.twins import data, deep, graph, heads, sequences

    every = [t for part in (deep, data, heads, sequences, graph) for t in part.TWINS]
    return {twin.name: twin for twin in every}
