"""Changes the sign of the loss.

What it does

A likelihood without its minus, or an error with one, falls as the answers become worse. The negative of the
user's loss is trained.

Safety

It changes the loss; values of the two losses cannot be compared. `receipt.loss` (`cured.loss`) is the loss to
train with.

Reference: Goodfellow et al. 2016, section 5.5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


class Negative:
    """The negative of the user's loss."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss

    def __call__(self, output: Any, y: Tensor) -> Tensor:
        value: Tensor = -self.loss(output, y)
        return value


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Train with the negative of the user's loss."""
    if surgery.loss is None:
        raise SurgeryError("flip-sign: there is no loss function whose sign could change")
    surgery.replace_loss(Negative(surgery.loss), "with the other sign")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return ["loss = -loss_fn(model(x), y)"]


def case() -> tuple[Case, Remedy]:
    """A squared error with a minus."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    batch = torch.randn(8, 8), torch.randn(8, 1)
    return Case(net, batch, lambda o, y: -nn.functional.mse_loss(o, y)), Remedy(
        "flip-sign", (), "an error falls"
    )
