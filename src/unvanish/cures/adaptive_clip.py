"""Adaptive gradient clipping: limits each unit's gradient to a share of its weights' norm.

What it does

Before each optimizer step, for every row of a weight, ||g|| <= ratio * max(||w||, 1e-3). A step with a
non-finite gradient is skipped.

Safety

It changes the training, not the function.

Reference: Brock et al. 2021 (AGC).
"""

from __future__ import annotations

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.clipping import AdaptiveClip
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"


def apply(surgery: Surgery, targets: tuple[str, ...], *, ratio: float = 0.01) -> None:
    """Clip before every step of the surgery's optimizer."""
    if ratio <= 0:
        raise SurgeryError(f"adaptive-clip: ratio is {ratio}, expected above 0")
    surgery.around("adaptive-clip", AdaptiveClip(ratio))


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    ratio = remedy.parameters.get("ratio", 0.01)
    return [
        "def clip(optimizer, args, kwargs):",
        "    parameters = (p for group in optimizer.param_groups for p in group['params'])",
        "    for p in (p for p in parameters if p.grad is not None and p.ndim):  # rows are units",
        "        size, slope = (t.detach().reshape(len(t), -1).norm(dim=1) for t in (p, p.grad))",
        f"        factor = ({ratio:g} * size.clamp_min(1e-3) / slope.clamp_min(1e-12)).clamp_max(1)",
        "        p.grad *= factor.view(-1, *(1,) * (p.ndim - 1))",
        "optimizer.register_step_pre_hook(clip)",
    ]


def case() -> tuple[Case, Remedy]:
    """A linear classifier."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(nn.Linear(8, 3), batch, nn.CrossEntropyLoss()), Remedy(
        "adaptive-clip", (), "unit by unit", "exact"
    )
