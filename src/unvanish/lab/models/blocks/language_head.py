"""The output layer of a language model, by default tied to the embedding (Press and Wolf 2017; Inan et al.
2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from unvanish.lab.models.blocks._example import SERIES, Example

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin


class Table(Protocol):
    """What a head can be tied to: an object with a weight (vocabulary, width)."""

    @property
    def weight(self) -> Tensor: ...


class LanguageHead(nn.Module):
    """(B, T, width) to logits (B, T, vocabulary); `tie` makes its weights those of an embedding."""

    def __init__(self, width_in: int, vocabulary: int, bias: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(width_in, vocabulary, bias=bias)
        self.tied = False

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the next token at every position."""
        return self.out(self.dropout(x))  # type: ignore[no-any-return]

    def tie(self, table: Table) -> None:
        """Share the weights of an embedding; ValueError if the shapes differ."""
        if table.weight.shape != self.out.weight.shape:
            raise ValueError(
                f"a head of {tuple(self.out.weight.shape)} cannot share an embedding of "
                f"{tuple(table.weight.shape)}; give both the same width, or leave `tied` out"
            )
        assert isinstance(table.weight, nn.Parameter)
        self.out.weight, self.tied = table.weight, True

    def initialise(self, begin: Begin) -> None:
        """Logits of unit power for a normalised input; a tied weight is initialised by the embedding."""
        if not self.tied:
            begin.layer(self.out)


EXAMPLES = {
    LanguageHead: Example({"vocabulary": 9}, [SERIES], (4, 5, 9)),
}
