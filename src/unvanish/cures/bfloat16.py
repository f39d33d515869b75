"""Another number format: bfloat16 has the range of float32 in half the memory.

What it does

Float parameters and buffers are converted in place (they stay the same objects), and float inputs are
converted in front of the model. float16 ends at 65,504 and 6e-8; bfloat16 ends where float32 does, with 3
digits.

Safety

Another rounding, so other numbers; the optimizer's own state is left as it is.

Reference: Kalamkar et al. 2019.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.grafts import Cast
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The whole model."""
    yield replace(remedy, targets=(), safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Convert the model to bfloat16."""
    convert(surgery, torch.bfloat16)


def convert(surgery: Surgery, dtype: torch.dtype) -> None:
    """Every float parameter and buffer, and every float input, in a dtype."""
    for name, tensor in [*surgery.model.named_parameters(), *surgery.model.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != dtype:
            _convert(surgery, name, tensor, dtype)
    surgery.graft("", Cast(dtype), f"inputs in {str(dtype).removeprefix('torch.')}")


def _convert(surgery: Surgery, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    before = tensor.data
    gradient = tensor.grad
    tensor.grad = None
    tensor.data = before.to(dtype)

    def undo() -> None:
        tensor.grad = None
        tensor.data = before
        tensor.grad = gradient

    surgery.note(name, f"in {str(dtype).removeprefix('torch.')}", undo)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return [
        "with torch.autocast(device_type, dtype=torch.bfloat16):  # or model.to(torch.bfloat16)",
        "    loss = loss_fn(model(x), y)",
    ]


def case() -> tuple[Case, Remedy]:
    """A small float32 net."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    return Case(net, (torch.randn(8, 8), torch.randn(8, 3)), Close()), Remedy("bfloat16", (), "range")


class Close:
    """The mean square error in float32."""

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(output.float(), y.float())
