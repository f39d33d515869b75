"""Removes the softmax (or sigmoid) before a loss that applies it itself.

What it does

Cross-entropy normalises logits. Given probabilities it normalises them again; two classes then differ by at
most one, so the loss cannot reach zero and the gradient stays small. The module becomes the identity; a call
in a forward or in the loss function is skipped. Apply the function yourself for prediction.

Safety

It changes the function: the model then returns logits.
"""

from __future__ import annotations

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.cures.swap_output_function import OUTPUT_KINDS, write_output
from unvanish.surgery.losses import remove_output_function
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def apply(surgery: Surgery, targets: tuple[str, ...], *, kind: str = "softmax") -> None:
    """Remove the `kind` ("softmax", "log_softmax", "sigmoid") at `targets`."""
    for target in targets:
        remove_output_function(surgery, target, kind)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    kind = str(remedy.parameters.get("kind", "softmax"))
    dim = ", dim=1" if kind in ("softmax", "log_softmax") else ""
    if kind not in OUTPUT_KINDS:
        raise ValueError(f"{kind!r} is no output function")
    return [*write_output(remedy.targets, kind, "identity"), f"# for prediction: torch.{kind}(model(x){dim})"]


def case() -> tuple[Case, Remedy]:
    """A classifier that ends in a softmax."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(-1))
    return Case(net, (torch.randn(8, 8), torch.randint(0, 3, (8,))), nn.CrossEntropyLoss()), Remedy(
        "remove-softmax", ("3",), "logits"
    )
