"""The classification head for detectors' backbones: a wide 1 x 1 convolution, an average, a linear layer.

References: Lin et al. 2014 (global average pooling, arXiv 1312.4400).
"""

from __future__ import annotations

from torch import Tensor, nn

from unvanish.lab.models.blocks._example import IMAGE, Example
from unvanish.lab.models.blocks.conv import Conv
from unvanish.lab.models.blocks.heads import GlobalAverage

WIDE = 1280


class Classify(nn.Module):
    """Logits (B, classes) of features (B, width_in, H, W)."""

    def __init__(
        self,
        width_in: int,
        classes: int,
        dropout: float = 0.0,
        activation: str = "silu",
        norm: str = "steady",
    ) -> None:
        super().__init__()
        self.conv = Conv(width_in, WIDE, 1, activation=activation, norm=norm)
        self.average, self.drop = GlobalAverage(), nn.Dropout(dropout)
        self.linear = nn.Linear(WIDE, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.drop(self.average(self.conv(x))))
        return y


EXAMPLES = {
    Classify: Example({"classes": 3}, [IMAGE], (4, 3)),
}
