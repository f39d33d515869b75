"""Gradient clipping by norm or by value that skips non-finite steps.

What it does

Before each optimizer step all gradients together are scaled to a norm of at most `limit` (with `by: value`
each element is clamped). Norms are in float64; a step with a non-finite gradient is skipped. PyTorch's own
clipping turns an overflowing norm into gradients that are all zero, and a NaN anywhere into NaN everywhere.

Safety

`exact`: the model computes what it computed. It bounds the step and leaves the ratio between early and
late layers as it is, so it cures no loss over the depth. It needs the optimizer; under `torch.amp` it sees
unscaled gradients.

Reference: Pascanu et al. 2013.
"""

from __future__ import annotations

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.clipping import NormClip, ValueClip
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"


def apply(surgery: Surgery, targets: tuple[str, ...], *, limit: float = 1.0, by: str = "norm") -> None:
    """Clip before every step of the surgery's optimizer."""
    if by not in ("norm", "value") or limit <= 0:
        raise SurgeryError(f"clip-gradient: by is {by!r} (norm or value), limit {limit} (above 0)")
    surgery.around("clip-gradient", NormClip(limit) if by == "norm" else ValueClip(limit))


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    limit = remedy.parameters.get("limit", 1.0)
    if remedy.parameters.get("by", "norm") == "value":
        return [f"nn.utils.clip_grad_value_(model.parameters(), {limit:g})  # before optimizer.step()"]
    return [
        "# before optimizer.step()",
        f"nn.utils.clip_grad_norm_(model.parameters(), {limit:g}, error_if_nonfinite=True)",
    ]


def case() -> tuple[Case, Remedy]:
    """A linear classifier."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(nn.Linear(8, 3), batch, nn.CrossEntropyLoss()), Remedy(
        "clip-gradient", (), "bounds the step", "exact", {"limit": 0.5}
    )
