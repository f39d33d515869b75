"""Converts the model to bfloat16, which has the range of float32 in half the memory.

What it does

Float parameters and buffers are converted in place (they stay the same objects), and float inputs are
converted in front of the model. float16 reaches from 6e-8 to 65,504; bfloat16 has the range of float32, with
3 digits.

Safety

It rounds more coarsely, so results differ; the optimizer's own state is left as it is.

Reference: Kalamkar et al. 2019.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.precision import Float32MSE, convert
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The whole model."""
    yield replace(remedy, targets=(), safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Convert the model to bfloat16."""
    convert(surgery, torch.bfloat16)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return [
        "model.float()  # and the optimizer after it",
        "with torch.autocast(x.device.type, torch.bfloat16):  # or model.to(torch.bfloat16)",
        "    loss = loss_fn(model(x.float()), y)",
    ]


def case() -> tuple[Case, Remedy]:
    """A small float32 net."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    return Case(net, (torch.randn(8, 8), torch.randn(8, 3)), Float32MSE()), Remedy("bfloat16", (), "range")
