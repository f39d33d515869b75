"""Puts a log-softmax before a loss that expects logarithms of probabilities.

What it does

`nll_loss` and `kl_div` take logarithms of probabilities and normalise nothing; of raw scores they make a loss
that falls without end. The scores go through a log-softmax over the classes, within the loss; the model stays
as it is.

Safety

It changes the loss; values of the two losses cannot be compared. `receipt.loss` (`cured.loss`) is the loss to
train with.

Reference: the documentation of torch.nn.NLLLoss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.probes.operations import LOSSES
from unvanish.surgery.losses import Rewired
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.rewire import Calls
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"
KINDS = ("nll_loss", "kl_div")


class Normalised:
    """Calls a loss on the log-softmax of what it was given."""

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        x = args[0] if args else kwargs.pop("input")
        return func(torch.log_softmax(x, 1 if x.ndim > 1 else 0), *args[1:], **kwargs)


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Let the loss read log-probabilities."""
    if surgery.loss is None:
        raise SurgeryError("insert-log-softmax: there is no loss function that reads scores")
    handlers = {name: Normalised() for name, kind in LOSSES.items() if kind in KINDS}
    surgery.replace_loss(Rewired(surgery.loss, handlers), "a log-softmax before it")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return [
        "loss = loss_fn(torch.log_softmax(model(x), dim=1), y)  # or nn.functional.cross_entropy(model(x), y)"
    ]


def case() -> tuple[Case, Remedy]:
    """Raw scores, read as log-probabilities."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    return Case(net, (torch.randn(8, 8), torch.randint(0, 3, (8,))), nn.NLLLoss()), Remedy(
        "insert-log-softmax", (), "log-probabilities"
    )
