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

from collections.abc import Sequence

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.losses import OUTPUT_FUNCTIONS, swap_output_function
from unvanish.surgery.names import quote, shorten, split_calls
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"
OUTPUT_KINDS = ("softmax", "log_softmax", "sigmoid", "tanh", "relu")  # that are removed by name
OUTPUT_CODE = {  # as a module, and as a call
    "identity": ("nn.Identity()", "z"),
    "sigmoid": ("nn.Sigmoid()", "torch.sigmoid(z)"),
    "log_softmax": ("nn.LogSoftmax(dim=1)", "torch.log_softmax(z, dim=1)"),
}


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
    kind, to = str(remedy.parameters.get("kind", "sigmoid")), str(remedy.parameters.get("to", "identity"))
    return write_output(remedy.targets, kind, to)


def write_output(targets: Sequence[str], kind: str, to: str) -> list[str]:
    """The modules swapped by name, and the calls that a person changes; ValueError for unknown functions."""
    if to not in OUTPUT_CODE:
        raise ValueError(f"{to!r} is no output function")
    modules, calls = split_calls(targets, {kind, "loss", ""})
    lines = [f"model.set_submodule({quote(name)}, {OUTPUT_CODE[to][0]})" for name in modules]
    told = f"# in place of {kind}(z) at {shorten(tuple(calls))}: {OUTPUT_CODE[to][1]}"
    return [*lines, *([told] if calls else [])]


def case() -> tuple[Case, Remedy]:
    """A sigmoid, for targets of any size."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Sigmoid())
    return Case(net, (torch.randn(8, 8), torch.randn(8, 3)), nn.MSELoss()), Remedy(
        "swap-output-function", ("3",), "any number", parameters={"kind": "sigmoid", "to": "identity"}
    )
