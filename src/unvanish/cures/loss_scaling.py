"""Loss scaling inside the model: gradients are multiplied by a power of two, and divided before the step.

What it does

The gradient that enters the model at its output is multiplied by 2**`log2`, so that float16 can hold what
follows; before each optimizer step the parameters' gradients are divided by it again, and a step in which
they overflowed is skipped. The printed loss and the training loop stay the same. Powers of two cause no
rounding.

Safety

The same function and the same gradients, except those that float16 could not hold. Do not combine it with
`torch.amp.GradScaler`.

Reference: Micikevicius et al. 2018.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.clipping import Clipper, scale
from unvanish.surgery.grafts import Graft, first, with_first
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"


class _Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * ctx.factor, None


class Entering(Graft):
    """Multiplies the gradient that enters at the output."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def after(self, args: tuple[Any, ...], output: Any) -> Any:
        found = first(output)
        scaled: Any = _Times.apply
        return output if found is None else with_first(output, scaled(found, self.factor))


class Unscale(Clipper):
    """Divides the gradients again before the step."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def clip(self, parameters: list[Tensor], grads: list[Tensor]) -> bool:
        scale(grads, 1 / self.factor)
        return False


def apply(surgery: Surgery, targets: tuple[str, ...], *, log2: int = 10) -> None:
    """Scale by 2**`log2` between the model's output and the surgery's optimizer."""
    surgery.around("loss-scaling", Unscale(2.0**log2))
    surgery.graft("", Entering(2.0**log2), f"gradients times 2**{log2} inside")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    scale = f"2.0**{remedy.parameters.get('log2', 10)}"
    return [
        f"scaler = torch.amp.GradScaler(x.device.type, init_scale={scale})  # for weights in float32",
        "with torch.autocast(x.device.type, torch.float16):",
        "    loss = loss_fn(model.float()(x.float()), y)",
        "scaler.scale(loss).backward()",
        "scaler.step(optimizer)",
        "scaler.update()",
    ]


def case() -> tuple[Case, Remedy]:
    """A linear classifier."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(nn.Linear(8, 3), batch, nn.CrossEntropyLoss()), Remedy(
        "loss-scaling", (), "a window for float16", "exact", {"log2": 8}
    )
