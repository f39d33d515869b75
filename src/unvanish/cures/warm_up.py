"""Warm-up: keeps the first steps small, until the branches and the optimizer's averages have settled.

What it does

For the first `steps` optimizer steps the learning rate is multiplied by (n + 1)/steps, for that step only, so
a scheduler's own rate stays as it is.

Safety

It changes the training, not the function.

References: Vaswani et al. 2017; Xiong et al. 2020; Ma and Yarats 2021 (for Adam, 2/(1 - beta2) steps).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"


class WarmUp:
    """Scales the learning rate for one step, then restores it."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.kept = steps, 0, [0.0]

    def __call__(self, optimizer: Any) -> None:
        self.kept = [group["lr"] for group in optimizer.param_groups]
        factor = min(1.0, (self.done + 1) / self.steps)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor

    def after(self, optimizer: Any) -> None:
        """Restore the rate."""
        self.done += 1
        for group, rate in zip(optimizer.param_groups, self.kept, strict=True):
            group["lr"] = rate


def apply(surgery: Surgery, targets: tuple[str, ...], *, steps: int = 1000) -> None:
    """Warm the surgery's optimizer up over `steps` steps."""
    if steps < 1:
        raise SurgeryError(f"warm-up: steps is {steps}, expected at least 1")
    schedule = WarmUp(steps)
    surgery.around("warm-up", schedule, schedule.after)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    steps = remedy.parameters.get("steps", 1000)
    rise = f"torch.optim.lr_scheduler.LinearLR(optimizer, 1 / {steps}, total_iters={steps})"
    return [f"warm_up = {rise}", "# after each optimizer.step(): warm_up.step()"]


def case() -> tuple[Case, Remedy]:
    """A linear classifier."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(nn.Linear(8, 3), batch, nn.CrossEntropyLoss()), Remedy(
        "warm-up", (), "small first steps", "exact", {"steps": 10}
    )
