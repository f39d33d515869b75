"""Gives the targets the shape of the output before the loss compares them.

What it does

An output of shape (N, 1) against targets of shape (N,) is broadcast to all pairs of samples. The targets are
viewed in the output's shape, sample by sample, if both hold as many numbers; the model stays as it is.

Safety

It changes the loss; values of the two losses cannot be compared. `receipt.loss` (`cured.loss`) is the loss to
train with.

Reference: the documentation of torch.broadcast_tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.grafts import first
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


class Matched:
    """The user's loss on targets of the output's shape; both must hold as many numbers."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss

    def __call__(self, output: Any, y: Tensor) -> Tensor:
        z = first(output)
        assert z is not None
        value: Tensor = self.loss(output, y.reshape(z.shape) if y.numel() == z.numel() else y)
        return value


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Train with the user's loss on targets in the shape of the output."""
    if surgery.loss is None:
        raise SurgeryError("match-target-shape: there is no loss function to give the targets to")
    surgery.replace_loss(Matched(surgery.loss), "targets in the shape of the output")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return ["output = model(x)", "loss = loss_fn(output, y.view_as(output))  # or output.squeeze(-1)"]


def case() -> tuple[Case, Remedy]:
    """An output of shape (8, 1) against targets of shape (8,)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    batch = torch.randn(8, 8), torch.randn(8)
    return Case(net, batch, nn.MSELoss()), Remedy("match-target-shape", (), "one shape")
