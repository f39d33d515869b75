"""Models converted to another dtype, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unvanish.surgery.grafts import Cast
from unvanish.surgery.surgery import Surgery


def convert(surgery: Surgery, dtype: torch.dtype) -> None:
    """Convert every float parameter and buffer to a dtype, and every float input."""
    for name, tensor in [*surgery.model.named_parameters(), *surgery.model.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != dtype:
            convert_tensor(surgery, name, tensor, dtype)
    surgery.graft("", Cast(dtype), f"inputs in {str(dtype).removeprefix('torch.')}")


def convert_tensor(surgery: Surgery, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Convert one parameter or buffer to a dtype; it stays the same object."""
    before = tensor.data
    gradient = tensor.grad
    tensor.grad = None
    tensor.data = before.to(dtype)

    def undo() -> None:
        tensor.grad = None
        tensor.data = before
        tensor.grad = gradient

    surgery.note(name, f"in {str(dtype).removeprefix('torch.')}", undo)


class Float32MSE:
    """The mean squared error, computed in float32: the loss of the cures' examples."""

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(output.float(), y.float())
