"""A running mean of the weights, used for validation (Polyak and Juditsky 1992).

Notable:
- The decay rises, decay (1 - exp(-n / tau)), so the mean of a short run does not stay near the first weights.
- Floating-point buffers (the norms' statistics) are averaged too; other buffers stay as they are.
- It keeps tensors, not a copy of the model: `within` swaps them in and out, sharded ones too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """The running mean of a model's floating-point state."""

    def __init__(self, model: nn.Module, decay: float, tau: float) -> None:
        self.decay, self.tau, self.steps = decay, tau, 0
        self.names, self.live = [], []
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.dtype.is_floating_point:
                self.names.append(name)
                self.live.append(tensor)
        self.mean = [t.detach().clone() for t in self.live]

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights after a step."""
        self.steps += 1
        share = 1 - self.decay * (1 - math.exp(-self.steps / max(self.tau, 1e-9)))
        torch._foreach_lerp_(self.mean, [t.detach() for t in self.live], share)

    @contextmanager
    def within(self) -> Iterator[None]:
        """Within the block the model holds the mean."""
        kept = [t.detach().clone() for t in self.live]
        self._fill(self.mean)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, source: list[Tensor]) -> None:
        for tensor, value in zip(self.live, source, strict=True):
            tensor.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """The mean, by the names of the model's tensors."""
        return dict(zip(self.names, self.mean, strict=True))

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Continue from a saved mean."""
        self.steps = steps
        for name, tensor in zip(self.names, self.mean, strict=True):
            tensor.copy_(state[name])
