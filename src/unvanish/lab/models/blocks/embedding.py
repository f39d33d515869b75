"""Token embeddings with positions (Vaswani et al. 2017; learned ones: Gehring et al. 2017).

Notable:
- Token 0 is padding: its vector starts and stays at zero.
- With `scale`, vectors start at 1/sqrt(width) and are multiplied by sqrt(width): unit power for what follows,
  and the right size for a tied output layer (Press and Wolf 2017).
- `std` is the initial size of a vector's entries for what follows. Adam moves them by its rate at any size,
  so small ones are learned sooner.
- In training, `word_dropout` replaces whole tokens by the unknown one (Dai and Le 2015).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unvanish.core.registry import suggest
from unvanish.lab.models.blocks._example import IDS, SERIES, Example
from unvanish.lab.tokens import UNKNOWN

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin

POSITIONS = ("none", "learned", "sinusoidal")


def sinusoids(steps: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of the position, (steps, width), of wavelengths from 2 pi to 20,000 pi."""
    pairs = torch.arange(0, width, 2, device=device)
    angles = torch.arange(steps, device=device)[:, None] * torch.exp(-math.log(10_000.0) * pairs / width)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)[:, :width]


class Embedding(nn.Module):
    """Token ids (B, T) to vectors (B, T, width); `length` is the number of learned positions."""

    SCALED = ("width",)

    def __init__(
        self,
        vocabulary: int,
        width: int = 128,
        positions: str = "none",
        length: int | None = None,
        scale: bool = False,
        std: float = 1.0,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if positions not in POSITIONS:
            known = ", ".join(POSITIONS)
            raise ValueError(f"no positions {positions!r}{suggest(positions, POSITIONS)}; there are {known}")
        if positions == "learned" and length is None:
            raise ValueError("learned positions need a length; give one, or take positions: sinusoidal")
        self.tokens = nn.Embedding(vocabulary, width, padding_idx=0)
        self.places = nn.Embedding(length or 1, width) if positions == "learned" else None
        self.positions, self.factor, self.std = positions, math.sqrt(width) if scale else 1.0, std
        self.dropout, self.word_dropout = nn.Dropout(dropout), word_dropout
        self.initialise()

    @property
    def weight(self) -> nn.Parameter:
        """The table of the tokens' vectors, (vocabulary, width)."""
        assert isinstance(self.tokens.weight, nn.Parameter)
        return self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Look up the vectors, add their positions."""
        if self.training and self.word_dropout:
            lost = (torch.rand(ids.shape, device=ids.device) < self.word_dropout) & (ids != 0)
            ids = ids.masked_fill(lost, UNKNOWN)
        x = self.factor * self.tokens(ids)
        if self.places is not None:
            self._check(ids.shape[1])
            x = x + self.factor * self.places.weight[: ids.shape[1]]
        elif self.positions == "sinusoidal":
            x = x + sinusoids(ids.shape[1], x.shape[2], x.device).to(x)
        return self.dropout(x)  # type: ignore[no-any-return]

    def _check(self, steps: int) -> None:
        assert self.places is not None
        if steps > self.places.num_embeddings:
            raise ValueError(
                f"{steps} tokens, but learned positions for {self.places.num_embeddings}; cut the sequence, "
                "build with a larger length, or take positions: sinusoidal"
            )

    def initialise(self, begin: Begin | None = None) -> None:
        """Entries of deviation `std` for what follows, for every method; padding is zero."""
        for table in (self.tokens, self.places):
            if table is not None:
                nn.init.normal_(table.weight, std=self.std / self.factor)
        with torch.no_grad():
            self.tokens.weight[0].zero_()


EXAMPLES = {
    Embedding: Example({"vocabulary": 9, "width": 8}, [IDS], SERIES),
}
