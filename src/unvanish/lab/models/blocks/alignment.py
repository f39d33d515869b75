"""Attention of a recurrent decoder: additive (Bahdanau et al. 2015) and multiplicative (Luong et al. 2015).

Notable: with attention a target word's gradient reaches every source word in one step; without it all of it
must pass the encoder's last state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unvanish.lab.models.blocks.masks import valid

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin


class Additive(nn.Module):
    """Scores v . tanh(W q + U m) of queries (B, Q, width) with a memory (B, S, width_memory)."""

    def __init__(self, width_in: int, width_memory: int, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width_in, width), nn.Linear(width_memory, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """The scores' part that depends on the memory alone, (B, S, width); once per sentence."""
        return self.key(memory)  # type: ignore[no-any-return]

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """The memory mixed for each query, (B, Q, width_memory)."""
        both = self.query(query)[:, :, None] + keys[:, None]  # (B, Q, S, width)
        return mix(self.score(both.tanh()).squeeze(-1), memory, mask)

    def initialise(self, begin: Begin) -> None:
        """Half the power from each side, so the tanh starts near its middle."""
        for layer in (self.query, self.key):
            begin.layer(layer, factor=0.5)
        begin.layer(self.score)


class Multiplicative(nn.Module):
    """Scores q . (U m) / sqrt(width) of queries (B, Q, width) with a memory (B, S, width_memory)."""

    def __init__(self, width_in: int, width_memory: int, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width_memory, width_in, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """The part of the scores that depends on the memory alone, (B, S, width)."""
        return self.key(memory)  # type: ignore[no-any-return]

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """The memory mixed for each query, (B, Q, width_memory)."""
        return mix(query @ keys.transpose(1, 2) / query.shape[-1] ** 0.5, memory, mask)

    def initialise(self, begin: Begin) -> None:
        """Unit power."""
        begin.layer(self.key)


def mix(scores: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
    """The memory (B, S, C) weighted by the softmax of scores (B, Q, S) over its real positions, (B, Q, C)."""
    if mask is not None:
        real = valid(mask)
        real = real | ~real.any(1, keepdim=True)
        scores = scores.masked_fill(~real[:, None], -torch.inf)
    return scores.softmax(-1) @ memory


NO_EXAMPLE = (Additive, Multiplicative)  # parts of the recurrent translator
