"""The transformer block: attention and a feed-forward part, each on a skip (Vaswani et al. 2017).

Notable:
- `place` is the position of the norm. "pre", x + f(norm(x)): the skip is untouched, so the gradient passes
  any depth (Xiong et al. 2020); the last layer of a branch starts smaller by sqrt(depth) (Radford et al.
  2019), since the stream sums `depth` of them. "post", norm(x + f(x)): the original order, which damps the
  skip at every block. "deepnorm", norm(alpha x + f(x)) with values, outputs and feed-forward started at beta
  times Xavier's: post-norm for a thousand layers (Wang et al. 2022, table 1).
- `depth` is the number of residual branches of the whole net: two per block, three with cross-attention. A
  decoder with an encoder has its own constants, see `deepnorm`.
- With `cross` a second attention reads a memory, as in the decoder of a translator.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unvanish.core.registry import suggest
from unvanish.lab.models.blocks._example import SERIES, Example
from unvanish.lab.models.blocks.activations import activation as activation_of
from unvanish.lab.models.blocks.activations import plain_name
from unvanish.lab.models.blocks.attention import MultiHeadAttention
from unvanish.lab.models.blocks.norms import norm as norm_of
from unvanish.theory.meanfield import field

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin

PLACES = ("pre", "post", "deepnorm")


def deepnorm(encoder: int = 0, decoder: int = 0) -> tuple[tuple[float, float], tuple[float, float]]:
    """(alpha, beta) of encoder and of decoder blocks, by their numbers (Wang et al. 2022, table 1)."""
    if encoder and decoder:
        both = encoder**4 * decoder
        return (0.81 * both ** (1 / 16), 0.87 * both ** (-1 / 16)), (
            (3 * decoder) ** 0.25,
            (12 * decoder) ** -0.25,
        )
    blocks = max(1, encoder + decoder)
    alone = ((2 * blocks) ** 0.25, (8 * blocks) ** -0.25)
    return alone, alone


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, at every position; (..., width) to itself."""

    def __init__(
        self, width_in: int, hidden: int | None = None, activation: str = "gelu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        hidden = 4 * width_in if hidden is None else hidden
        self.up, self.down = nn.Linear(width_in, hidden), nn.Linear(hidden, width_in)
        self.activation, self.phi, self.dropout = activation, activation_of(activation), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Widen, activate, narrow."""
        return self.down(self.dropout(self.phi(self.up(x))))  # type: ignore[no-any-return]

    def initialise(self, begin: Begin, inner: float = 1.0, end: float = 1.0) -> None:
        """Unit power before the activation, and again at the end; `inner` and `end` multiply the weights."""
        if begin.safe:
            end *= field(plain_name(self.activation)).power(1.0) ** -0.5
            begin.layer(self.up, factor=inner)
        else:
            begin.layer(self.up, ahead=self.activation, factor=inner)
        begin.layer(self.down, factor=end)


class Branch(nn.Module):
    """A part on a skip, with its norm before it, after the sum, or after a scaled skip."""

    part: Any  # MultiHeadAttention, FeedForward or another module

    def __init__(self, part: nn.Module, norm: nn.Module, place: str, alpha: float, dropout: float) -> None:
        super().__init__()
        self.norm, self.part, self.dropout = norm, part, nn.Dropout(dropout)
        self.place, self.alpha = place, alpha

    def forward(self, x: Tensor, **given: Tensor | None) -> Tensor:
        """The stream (B, T, width) with the part's contribution."""
        if self.place == "pre":
            return x + self.dropout(self.part(self.norm(x), **given))  # type: ignore[no-any-return]
        skip = x if self.place == "post" else self.alpha * x
        return self.norm(skip + self.dropout(self.part(x, **given)))  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """One block on a stream (B, T, width), with one branch for each part."""

    BRANCHES = 2  # three with cross-attention

    def __init__(
        self,
        width_in: int,
        heads: int = 4,
        hidden: int | None = None,
        place: str = "pre",
        depth: int = 2,
        cross: bool = False,
        causal: bool = False,
        dropout: float = 0.0,
        activation: str = "gelu",
        norm: str = "layer",
        qk_norm: bool = False,
        scales: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if place not in PLACES:
            raise ValueError(f"no place {place!r}{suggest(place, PLACES)}; there are {', '.join(PLACES)}")
        self.place, self.depth = place, max(1, depth)
        plain = deepnorm(encoder=math.ceil(self.depth / 2))[0] if place == "deepnorm" else (1.0, 1.0)
        alpha, self.beta = scales or plain

        def branch(part: nn.Module) -> Branch:
            return Branch(part, norm_of(norm, width_in, dims=1), place, alpha, dropout)

        self.attention = branch(MultiHeadAttention(width_in, heads, causal, dropout, qk_norm))
        self.cross = branch(MultiHeadAttention(width_in, heads, False, dropout, qk_norm)) if cross else None
        self.feedforward = branch(FeedForward(width_in, hidden, activation, dropout))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """The stream (B, T, width) after one block; masks (B, T) and (B, S) as for the attention."""
        if (memory is None) != (self.cross is None):
            raise ValueError(
                "a block with cross=True takes a memory, one without takes none; "
                f"this one has cross={self.cross is not None}"
            )
        x = self.attention(x, mask=mask)
        if self.cross is not None:
            x = self.cross(x, mask=memory_mask, memory=memory)
        return self.feedforward(x)  # type: ignore[no-any-return]

    def initialise(self, begin: Begin) -> None:
        """Branches whose ends are scaled for the depth (pre), or Xavier's weights times beta (deepnorm)."""
        if self.place == "deepnorm":
            begin = replace(begin, method="xavier")
        end = self.depth**-0.5 if self.place == "pre" and begin.safe else self.beta
        for branch in (self.attention, self.cross, self.feedforward):
            if branch is not None:
                branch.part.initialise(begin, self.beta, end)


EXAMPLES = {
    FeedForward: Example({}, [SERIES], SERIES),
    TransformerBlock: Example({"heads": 2}, [SERIES], SERIES),
}
NO_EXAMPLE = (Branch,)  # a part of the block
