"""Results that move as tensors do: `.cpu()`, `.cuda()`, `.to(...)`, `.numpy()`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

Act = Callable[[Tensor], Any]


class Movable:
    """A dataclass whose tensors, and those of what it holds, move together; the image stays."""

    def move(self, act: Act) -> Self:
        """The same with `act` done to each tensor; arrays are tensors again before."""
        made: Any = self
        new = {}
        for field in fields(made):
            value = getattr(self, field.name)
            if isinstance(value, Movable):
                new[field.name] = value.move(act)
            elif isinstance(value, (Tensor, np.ndarray)) and field.name != "image":
                new[field.name] = act(torch.as_tensor(value))
        moved: Self = replace(made, **new)
        return moved

    def to(self, *where: Any, **how: Any) -> Self:
        """The same on another device or in another type, as `Tensor.to` takes them."""
        return self.move(lambda t: t.to(*where, **how))

    def cpu(self) -> Self:
        """The same on the CPU."""
        return self.move(lambda t: t.cpu())

    def cuda(self) -> Self:
        """The same on the GPU."""
        return self.move(lambda t: t.cuda())

    def numpy(self) -> Self:
        """The same as NumPy arrays."""
        return self.move(lambda t: t.cpu().numpy())


def match_kind(made: Tensor, held: Any) -> Any:
    """A tensor made from `held`: an array if that is one."""
    return made.numpy() if isinstance(held, np.ndarray) else made
