"""A cut in the graph, taken out: detach, .data, or a module run under no_grad.

What it does

In the module that cuts, `detach()` and `.data` return what they are called on, and what runs under
`torch.no_grad()` is recorded again. A trip through NumPy or Python numbers cannot be mended from outside.

Safety

The same outputs, more gradient. Where the cut is meant (a target network, a teacher), leave it, or freeze
what lies behind it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.functions import split
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


class Whole:
    """What is called on a tensor returns the tensor."""

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return args[0]


class Recorded:
    """Any operation, with gradients on."""

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with torch.enable_grad():
            return func(*args, **kwargs)


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Take the cuts in the modules `targets` out."""
    for target in targets:
        path, _ = split(target)
        path = "" if path == "(model)" else path
        while path and not surgery.has(path):
            path = path.rpartition(".")[0]
        surgery.graft(
            path, Rewire({"detach": Whole(), "data": Whole(), "*": Recorded()}), "its cuts taken out"
        )


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    where = ", ".join(remedy.targets) or "the model"
    return [f"# in {where}: no .detach(), no .data, no torch.no_grad() on the way to the loss"]


class Cut(nn.Module):
    """A layer behind which the graph is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.layer(x)).detach())
        return out


def case() -> tuple[Case, Remedy]:
    """A detach in a user's own forward."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(Cut(), batch, nn.CrossEntropyLoss()), Remedy("remove-detach", ("(model)",), "a whole graph")
