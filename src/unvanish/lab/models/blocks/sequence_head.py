"""The output layer for sequence tasks and for classes of texts: dropout and one linear layer.

Notable: weights start ten times smaller than for unit power, so the first loss is that of a uniform guess and
the first gradients come from the task, not from confident errors. No paper: it is too simple.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from unvanish.lab.models.blocks._example import SERIES, Example

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin

SMALL = 0.1


class SequenceHead(nn.Module):
    """(B, width) to (B, n), or (B, T, width) to (B, T, n); n is `outputs`, or `classes` without them."""

    def __init__(
        self, width_in: int, outputs: int | None = None, classes: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        wanted = outputs or classes
        if not wanted:
            raise ValueError("a head needs to know how many outputs or classes; give outputs: or classes:")
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(width_in, wanted)

    def forward(self, x: Tensor) -> Tensor:
        """The values or logits."""
        return self.out(self.dropout(x))  # type: ignore[no-any-return]

    def initialise(self, begin: Begin) -> None:
        """Small weights."""
        begin.layer(self.out, factor=SMALL if begin.safe else 1.0)


EXAMPLES = {
    SequenceHead: Example({"outputs": 3}, [SERIES], (4, 5, 3)),
}
