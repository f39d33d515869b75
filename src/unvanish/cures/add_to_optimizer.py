"""Adds the trainable parameters that no optimizer holds to the optimizer.

Safety

The function stays the same; the parameters begin to learn.
"""

from __future__ import annotations

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Add every trainable parameter of the model that the surgery's optimizer lacks to its largest group."""
    if surgery.optimizer is None:
        raise SurgeryError("add-to-optimizer works on the optimizer; pass it: apply(..., optimizer=...)")
    groups = surgery.optimizer.param_groups
    held = {id(p) for group in groups for p in group["params"]}
    missing = [p for p in surgery.model.parameters() if p.requires_grad and id(p) not in held]
    group = max(groups, key=lambda g: len(g["params"]))
    before = group["params"]
    group["params"] = [*before, *missing]

    def undo() -> None:
        group["params"] = before
        for p in missing:
            surgery.optimizer.state.pop(p, None)

    surgery.note("optimizer", f"{len(missing)} parameters added", undo)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return [
        "held = {id(p) for group in optimizer.param_groups for p in group['params']}",
        "missing = [p for p in model.parameters() if p.requires_grad and id(p) not in held]",
        "optimizer.add_param_group({'params': missing})  # or make it when the model is complete",
    ]


def case() -> tuple[Case, Remedy]:
    """A small net."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    return Case(net, (torch.randn(8, 8), torch.randint(0, 3, (8,))), nn.CrossEntropyLoss()), Remedy(
        "add-to-optimizer", ("0.weight",), "to learn"
    )
