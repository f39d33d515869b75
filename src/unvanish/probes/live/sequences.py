"""Fused recurrent layers of a watched step: a few of their sequences, followed through time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probes.recurrent import replay

SEQUENCES = 2  # of a batch whose time profile is followed


@dataclass
class Turn:
    """One call of a fused recurrent layer: a few sequences of it, and the gradients they get."""

    module: nn.RNNBase
    x: Tensor
    hx: Any
    gradients: dict[str, Tensor | None] = field(default_factory=dict)

    def kept(self, name: str, dim: int) -> Callable[[Tensor], None]:
        """A tensor hook that keeps a few sequences of a gradient under a name."""
        self.gradients[name] = None

        def hook(gradient: Tensor) -> None:
            self.gradients[name] = few(gradient, dim).double()

        return hook

    def replayed(self) -> list[replay.Profile]:
        """The profile of each layer and direction; empty where no gradient came."""
        states: Any = [g for k, g in self.gradients.items() if k.startswith("state")]
        if all(g is None for g in self.gradients.values()):
            return []
        if isinstance(self.module, nn.LSTM) and any(s is not None for s in states):
            like = next(s for s in states if s is not None)
            states = tuple(torch.zeros_like(like) if s is None else s for s in states)
        else:
            states = next((s for s in states if s is not None), None)
        return replay.replay(self.module, (self.x, self.hx), self.gradients.get("output"), states, probes=1)


def few(value: Any, dim: int) -> Any:
    """A few sequences of a tensor, or of the tensors of a tuple."""
    if isinstance(value, tuple):
        return tuple(few(v, dim) for v in value)
    return (
        value.detach().narrow(dim, 0, min(SEQUENCES, value.shape[dim])).clone() if value is not None else None
    )
