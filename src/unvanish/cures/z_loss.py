"""Adds a penalty on the size of the logits to the loss: weight * logsumexp(z)^2.

Safety

The function stays the same, the loss changes: `receipt.loss` (`cured.loss`) is the loss to train with.
Weights of 1e-4 keep log Z near zero over a long run; if logits are already huge, use `shrink-output-layer`.

References: Chowdhery et al. 2022 (PaLM); Zoph et al. 2022.
"""

from __future__ import annotations

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.losses import ZLoss
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"


def apply(surgery: Surgery, targets: tuple[str, ...], *, weight: float = 1e-4) -> None:
    """Add the penalty to the surgery's loss."""
    if weight <= 0:
        raise SurgeryError(f"z-loss: weight is {weight}, expected above 0")
    surgery.replace_loss(ZLoss(surgery.loss, weight), f"{weight:g} * logsumexp(logits)^2 added")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    weight = remedy.parameters.get("weight", 1e-4)
    return [
        "logits = model(x)",
        f"loss = loss_fn(logits, y) + {weight:g} * logits.logsumexp(-1).square().mean()",
    ]


def case() -> tuple[Case, Remedy]:
    """A classifier."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(nn.Linear(8, 3), batch, nn.CrossEntropyLoss()), Remedy("z-loss", (), "small logits", "exact")
