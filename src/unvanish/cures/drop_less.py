"""Lowers the share that a dropout drops.

What it does

`p` is the share that is dropped, not the one that is kept. Dropout modules, and the dropout of attention and
recurrent layers, get another `p`; calls of `torch.nn.functional.dropout` in a forward are rewired while it
runs.

Safety

It changes the training alone: in evaluation the function is the same.

Reference: Srivastava et al. 2014.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.names import list_names
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"
USUAL = 0.1
FUNCTIONS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
MODEL = "(model)"


class Lowered:
    """Calls a dropout with another share, which it takes second or by its name."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if len(args) > 1:
            return func(args[0], self.p, *args[2:], **kwargs)
        return func(*args, **{**kwargs, "p": self.p})


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The dropouts of the finding."""
    if remedy.targets:
        yield replace(remedy, parameters={"p": remedy.parameters.get("p", USUAL)}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...], *, p: float = USUAL) -> None:
    """Drop the share `p` at the modules `targets`, 0 <= p < 1."""
    if not 0 <= p < 1:
        raise SurgeryError(f"drop-less: p is {p:g}; it is a share, at least 0 and below 1")
    for target in targets:
        path = "" if target == MODEL else target
        module: Any = surgery.module(path)
        if isinstance(module, nn.modules.dropout._DropoutNd):
            surgery.assign(module, "p", p, path, f"drops {p:g}")
        elif isinstance(vars(module).get("dropout"), float):
            surgery.assign(module, "dropout", p, path, f"drops {p:g}")
        else:
            surgery.graft(path, Rewire({name: Lowered(p) for name in FUNCTIONS}, own=True), f"drops {p:g}")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    p = remedy.parameters.get("p", USUAL)
    names = [name for name in remedy.targets if name != MODEL]
    return [
        f"for name in {list_names(names)}:",
        "    module = model.get_submodule(name)",
        f"    setattr(module, 'p' if hasattr(module, 'p') else 'dropout', {p:g})",
        *(
            [f"# in the forward: nn.functional.dropout(x, {p:g}, self.training)"]
            if MODEL in remedy.targets
            else []
        ),
    ]


class Dropping(nn.Module):
    """A net that calls dropout in its forward, beside a module."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop, self.head = nn.Linear(8, 16), nn.Dropout(0.95), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(torch.relu(self.layer(x)))
        out: Tensor = self.head(nn.functional.dropout(h, 0.95, self.training))
        return out


def case() -> tuple[Case, Remedy]:
    """Two dropouts that leave a twentieth."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(Dropping(), batch, nn.CrossEntropyLoss()), Remedy(
        "drop-less", ("drop", MODEL), "p is the share that is dropped", parameters={"p": USUAL}
    )
