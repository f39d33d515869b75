"""Standardises the targets before the loss compares them with the output: (y - mean) / std.

What it does

The training set's mean and deviation, as numbers or one for each column, are applied to the targets; the
model learns the standardised ones, and its predictions go back by `* std + mean`. The model stays as it is.

Safety

It changes the loss; values of the two losses cannot be compared. `receipt.loss` (`cured.loss`) is the loss to
train with.

Reference: LeCun et al. 1998.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures._scale import choose_scale, read_scale
from unvanish.surgery.anatomy import round_digits
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


class OnStandardised:
    """The user's loss on (y - mean) / std; numbers, or one for each of the last axis."""

    def __init__(self, loss: Any, mean: Any, std: Any) -> None:
        self.loss, self.mean, self.std = loss, mean, std

    def __call__(self, output: Any, y: Tensor) -> Tensor:
        mean, std = (torch.as_tensor(v, dtype=y.dtype, device=y.device) for v in (self.mean, self.std))
        value: Tensor = self.loss(output, (y - mean) / std)
        return value


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The mean and deviation of the batch's targets, rounded."""
    settings = {name: _round(value) for name, value in remedy.parameters.items()}
    if settings:
        yield replace(remedy, targets=(), parameters=settings, safety="retrain")


def _round(value: Any) -> Any:
    return (
        [round_digits(float(v)) for v in value] if isinstance(value, (list, tuple)) else round_digits(value)
    )


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    mean: float = 0.0,
    std: float = 1.0,
    means: Any = None,
    stds: Any = None,
) -> None:
    """Train with the user's loss on standardised targets; `means`, `stds`: by column."""
    centre, scale = choose_scale("standardise-target", mean, std, means, stds)
    if surgery.loss is None:
        raise SurgeryError("standardise-target: there is no loss function to give the targets to")
    surgery.replace_loss(OnStandardised(surgery.loss, centre, scale), "on standardised targets")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    mean, std = read_scale(remedy.parameters)
    many = isinstance(mean, list)
    mean, std = (f"torch.tensor({v})" for v in (mean, std)) if many else (mean, std)
    return [
        f"mean, std = {mean}, {std}  # of the training set",
        "loss = loss_fn(model(x), (y - mean) / std)",
        "# for prediction: model(x) * std + mean",
    ]


def case() -> tuple[Case, Remedy]:
    """Targets of some ten thousands."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    batch = torch.randn(8, 8), 20000 + 8000 * torch.randn(8, 1)
    return Case(net, batch, nn.MSELoss()), Remedy(
        "standardise-target", (), "large targets", parameters={"mean": 20000.0, "std": 8000.0}
    )
