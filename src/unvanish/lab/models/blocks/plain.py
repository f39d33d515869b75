"""Plain blocks: residual blocks without the shortcut, as in the networks that motivated residual learning.

Notable: twenty such layers train well, 56 train worse although they can express more; with BatchNorm the
gradient grows with every layer.

References: Simonyan and Zisserman 2015; He et al. 2016 (arXiv 1512.03385), figure 1 and section 4.2.
"""

from __future__ import annotations

from torch import nn

from unvanish.lab.models.blocks._example import IMAGE, Example
from unvanish.lab.models.blocks.conv import Conv


class PlainBlock(nn.Sequential):
    """Two 3 x 3 convolutions in a row: (B, width_in, H, W) to (B, out, H / stride, W / stride)."""

    def __init__(
        self, width_in: int, out: int, stride: int = 1, activation: str = "relu", norm: str = "batch"
    ) -> None:
        super().__init__(
            Conv(width_in, out, 3, stride, activation=activation, norm=norm),
            Conv(out, out, 3, activation=activation, norm=norm),
        )


EXAMPLES = {
    PlainBlock: Example({"out": 8, "stride": 2}, [IMAGE], (4, 8, 4, 4)),
}
