"""Sets biases to zero: units that their biases keep off (or saturated) come back.

Safety

It changes the function: for untrained models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.anatomy import Anatomy
from unvanish.surgery.names import each_parameter
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The biases of the layers that feed the named activations."""
    names = tuple(x.bias for x in Anatomy(trace).before(remedy.targets) if x.bias)
    if names:
        yield replace(remedy, targets=names, parameters={}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Zero the biases named by `targets`."""
    for name in targets:
        surgery.fill(name, 0.0, "zero")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return each_parameter(remedy.targets, "nn.init.zeros_({})")


def case() -> tuple[Case, Remedy]:
    """A layer whose biases keep its units off."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    nn.init.constant_(net.get_parameter("0.bias"), -8.0)
    return Case(net, (torch.randn(8, 8), torch.randint(0, 3, (8,))), nn.CrossEntropyLoss()), Remedy(
        "zero-bias", ("0.bias",), "units off"
    )
