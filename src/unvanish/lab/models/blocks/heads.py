"""Class scores from features: an average over the positions, then one linear layer.

References: Lin et al. 2014 (global average pooling in place of dense layers).
"""

from __future__ import annotations

from torch import Tensor, nn

from unvanish.lab.models.blocks._example import IMAGE, Example


class GlobalAverage(nn.Module):
    """The mean over all positions: (B, C, H, W) to (B, C), (B, T, C) to (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.ndim == 4 else x.mean(1)


class ClassifyHead(nn.Module):
    """Class scores from features: (B, C, H, W), (B, T, C) or (B, C) to (B, classes)."""

    def __init__(self, width_in: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.average, self.drop = GlobalAverage(), nn.Dropout(dropout)
        self.linear = nn.Linear(width_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.average(x) if x.ndim > 2 else x
        y: Tensor = self.linear(self.drop(features))
        return y


EXAMPLES = {
    GlobalAverage: Example({}, [IMAGE], (4, 6)),
    ClassifyHead: Example({"classes": 3}, [IMAGE], (4, 3)),
}
