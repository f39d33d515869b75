"""Convolution, normalisation, activation: the building block of most image networks.

Notable: the convolution has a bias only without a normalisation, which would cancel it.

References: LeCun et al. 1989 (convolution); Ioffe and Szegedy 2015 (the order of the three); Howard et al.
2017 (depthwise, arXiv 1704.04861).
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn

from unvanish.lab.models.blocks import norms
from unvanish.lab.models.blocks._example import IMAGE, Example
from unvanish.lab.models.blocks.activations import activation as activation_module


class Conv(nn.Module):
    """activation(norm(convolution(x))): (B, width_in, H, W) to (B, out, H / stride, W / stride).

    `activation`, `norm`: by name, "none" for none; padding is kernel // 2, or as given.
    """

    PUBLISHED: ClassVar[dict[str, str]] = {"norm": "bn"}
    CLASSIC: ClassVar[dict[str, int]] = {"kernel": 1}

    def __init__(
        self,
        width_in: int,
        out: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        plain = norms.plain_name(norm) == "none"
        pad = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(width_in, out, kernel, stride, pad, groups=groups, bias=plain)
        self.norm = norms.norm(norm, out)
        self.activation = activation_module(activation)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.norm(self.conv(x)))
        return y


class DWConv(Conv):
    """The same, depthwise: as many groups as the widths have in common."""

    def __init__(
        self,
        width_in: int,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        groups = math.gcd(width_in, out)
        super().__init__(width_in, out, kernel, stride, None, groups, activation, norm)


EXAMPLES = {
    DWConv: Example({"out": 12, "kernel": 3, "stride": 2}, [IMAGE], (4, 12, 4, 4)),
    Conv: Example({"out": 5, "stride": 2}, [IMAGE], (4, 5, 4, 4)),
}
