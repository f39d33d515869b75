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
        "for p in model.parameters():  # before optimizer.step(); rows of a weight are units",
        f"    limit = {ratio:g} * p.detach().flatten(1).norm(dim=1).clamp_min(1e-3)",
    ]


def case() -> tuple[Case, Remedy]:
    """A linear classifier."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(nn.Linear(8, 3), batch, nn.CrossEntropyLoss()), Remedy(
        "adaptive-clip", (), "unit by unit", "exact"
    )
