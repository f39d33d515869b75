"""The softmax (or sigmoid) in front of a loss that applies it itself, left out.

What it does

Cross-entropy normalises logits; given probabilities it normalises them again, and the largest difference two
classes can have is one: the gradient is finite and small for ever. The module becomes the identity, a call in
a forward is left out, and so is one inside the loss function. Apply the function yourself for prediction.

Safety

Another function: the model then returns logits.
"""

from __future__ import annotations

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.losses import take_away
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def apply(surgery: Surgery, targets: tuple[str, ...], *, kind: str = "softmax") -> None:
    """Leave the `kind` ("softmax", "log_softmax", "sigmoid") at `targets` out."""
    for target in targets:
        take_away(surgery, target, kind)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    kind = remedy.parameters.get("kind", "softmax")
    return [
        f"# return the logits: no {kind} at {', '.join(remedy.targets)}",
        f"# for prediction: torch.{kind}(model(x))",
    ]


def case() -> tuple[Case, Remedy]:
    """A classifier that ends in a softmax."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(-1))
    return Case(net, (torch.randn(8, 8), torch.randint(0, 3, (8,))), nn.CrossEntropyLoss()), Remedy(
        "remove-softmax", ("3",), "logits"
    )
