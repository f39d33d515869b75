"""Removes a cut in the graph: detach, .data, or a module run under no_grad.

What it does

In the module that cuts, `detach()` and `.data` return the tensor itself, and operations under
`torch.no_grad()` are recorded again. A round trip through NumPy or Python numbers cannot be repaired from
outside.

Safety

The outputs stay the same; more parameters get a gradient. If the cut is intended (a target network, a
teacher), leave it, or freeze what lies behind it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.names import show
from unvanish.surgery.names import split_label
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


class Whole:
    """Returns the tensor that a function is called on."""

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return args[0]


class Recorded:
    """Runs any operation with gradients enabled."""

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func.__name__ == "_set_grad_enabled":
            return func(*args, **kwargs)
        with torch.enable_grad():
            return func(*args, **kwargs)


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Remove the cuts in the modules `targets`."""
    for target in targets:
        path, _ = split_label(target)
        path = "" if path == "(model)" else path
        while path and not surgery.has(path):
            path = path.rpartition(".")[0]
        surgery.graft(path, Rewire({"detach": Whole(), "data": Whole(), "*": Recorded()}), "its cuts removed")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    where = ", ".join(map(show, remedy.targets)) or "the model"
    return [f"# in {where}: no .detach(), no .data, no torch.no_grad() on the way to the loss"]


class Cut(nn.Module):
    """A layer after which the graph is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.layer(x)).detach())
        return out


def case() -> tuple[Case, Remedy]:
    """A detach in a forward."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(Cut(), batch, nn.CrossEntropyLoss()), Remedy("remove-detach", ("(model)",), "a whole graph")
