"""Multiplies every learning rate of the optimizer by a factor.

Safety

It changes the training, not the function. Units die and logits run away if steps are larger than about 1 % of
the weights' size; start here.
"""

from __future__ import annotations

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"


def apply(surgery: Surgery, targets: tuple[str, ...], *, factor: float = 0.1) -> None:
    """Multiply the rates of the surgery's optimizer."""
    if surgery.optimizer is None:
        raise SurgeryError("lower-learning-rate works on the optimizer; pass it: apply(..., optimizer=...)")
    groups = surgery.optimizer.param_groups
    kept = [group["lr"] for group in groups]
    for group in groups:
        group["lr"] = group["lr"] * factor

    def undo() -> None:
        for group, rate in zip(groups, kept, strict=True):
            group["lr"] = rate

    surgery.note("optimizer", f"learning rate times {factor:g}", undo)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return [f"for group in optimizer.param_groups: group['lr'] *= {remedy.parameters.get('factor', 0.1):g}"]


def case() -> tuple[Case, Remedy]:
    """A linear classifier."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(nn.Linear(8, 3), batch, nn.CrossEntropyLoss()), Remedy(
        "lower-learning-rate", (), "smaller steps", "exact"
    )
