"""Spatial pyramid pooling: maxima over windows of several sizes, concatenated at full resolution.

Notable: chained pools of 5 (SPPF) see windows of 5, 9 and 13, as SPP's three pools do, at the cost of three
small ones.

References: He et al. 2014 (spatial pyramid pooling, arXiv 1406.4729).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from unvanish.lab.models.blocks._example import IMAGE, Example
from unvanish.lab.models.blocks.conv import Conv


class SPPF(nn.Module):
    """Half the channels and three chained max pools of them: (B, width_in, H, W) to (B, out, H, W)."""

    PUBLISHED: ClassVar[dict[str, str]] = {"reduce": "cv1", "join": "cv2"}

    def __init__(
        self, width_in: int, out: int, kernel: int = 5, activation: str = "silu", norm: str = "steady"
    ) -> None:
        super().__init__()
        half = width_in // 2
        self.reduce = Conv(width_in, half, 1, activation=activation, norm=norm)
        self.pool = nn.MaxPool2d(kernel, 1, kernel // 2)
        self.join = Conv(4 * half, out, 1, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        pieces = [self.reduce(x)]
        for _ in range(3):
            pieces.append(self.pool(pieces[-1]))
        y: Tensor = self.join(torch.cat(pieces, 1))
        return y


class SPP(nn.Module):
    """Half the channels and a max pool of them for each kernel: (B, width_in, H, W) to (B, out, H, W)."""

    PUBLISHED: ClassVar[dict[str, str]] = {"reduce": "cv1", "join": "cv2", "pools": "m"}

    def __init__(
        self,
        width_in: int,
        out: int,
        kernels: Sequence[int] = (5, 9, 13),
        activation: str = "silu",
        norm: str = "steady",
    ) -> None:
        super().__init__()
        half = width_in // 2
        self.reduce = Conv(width_in, half, 1, activation=activation, norm=norm)
        self.pools = nn.ModuleList(nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in kernels)
        self.join = Conv((1 + len(kernels)) * half, out, 1, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        y: Tensor = self.join(torch.cat([x, *(pool(x) for pool in self.pools)], 1))
        return y


EXAMPLES = {
    SPP: Example({"out": 8}, [IMAGE], (4, 8, 8, 8)),
    SPPF: Example({"out": 8}, [IMAGE], (4, 8, 8, 8)),
}
