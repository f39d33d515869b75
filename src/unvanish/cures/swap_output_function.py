"""Swaps the function that the loss reads for one that fits the targets, or takes it away.

What it does

A sigmoid, tanh, ReLU or softmax at the output becomes the identity, for numbers of any size and for losses on
logits; a sigmoid, for one unit or several labels; or a log-softmax, for losses on log-probabilities. It is
swapped wherever it is: a module, a call in a forward, or a call in the loss.

Safety

It changes the function: for untrained models.

Reference: Goodfellow et al. 2016, section 6.2.2.
"""

from __future__ import annotations

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.names import show
from unvanish.surgery.losses import OUTPUT_FUNCTIONS, swap_output_function
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def apply(surgery: Surgery, targets: tuple[str, ...], *, kind: str = "sigmoid", to: str = "identity") -> None:
    """Put `to` ("identity", "sigmoid", "log_softmax") in place of the `kind` at `targets`."""
    if to not in OUTPUT_FUNCTIONS:
        raise SurgeryError(
            f"swap-output-function: to is {to!r}; it must be one of {', '.join(OUTPUT_FUNCTIONS)}"
        )
    for target in targets:
        swap_output_function(surgery, target, kind, to)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    kind, to = remedy.parameters.get("kind", "sigmoid"), remedy.parameters.get("to", "identity")
    after = {"identity": "y = z", "sigmoid": "y = torch.sigmoid(z)"}
    return [
        f"# z: what the {kind} at {', '.join(map(show, remedy.targets))} reads",
        after.get(to, f"y = torch.{to}(z, dim=1)"),
    ]


def case() -> tuple[Case, Remedy]:
    """A sigmoid, for targets of any size."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Sigmoid())
    return Case(net, (torch.randn(8, 8), torch.randn(8, 3)), nn.MSELoss()), Remedy(
        "swap-output-function", ("3",), "any number", parameters={"kind": "sigmoid", "to": "identity"}
    )
