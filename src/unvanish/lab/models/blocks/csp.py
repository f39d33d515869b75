"""Cross-stage blocks of detectors: part of the channels passes bottlenecks, then all are concatenated.

Notable:
- C3k2 keeps the output of every inner block (as ELAN does), so each has a short path to the loss.
- The inner block is a bottleneck, or a C3k if the row says so, and always in the large variants (m, l, x).

References: Wang et al. 2020 (CSPNet, arXiv 1911.11929); Wang et al. 2022 (ELAN, arXiv 2211.04800).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from unvanish.lab.models.blocks._example import IMAGE, Example
from unvanish.lab.models.blocks.conv import Conv

LARGE = ("m", "l", "x")


class CrossBottleneck(nn.Module):
    """x + Conv3x3(Conv3x3(x)) on `width_in` channels, `expansion` times as many inside."""

    PUBLISHED: ClassVar[dict[str, str]] = {"first": "cv1", "second": "cv2"}

    def __init__(
        self, width_in: int, expansion: float = 0.5, activation: str = "silu", norm: str = "steady"
    ) -> None:
        super().__init__()
        inner = int(expansion * width_in)
        self.first = Conv(width_in, inner, 3, activation=activation, norm=norm)
        self.second = Conv(inner, width_in, 3, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.second(self.first(x))
        return y


class C3k(nn.Module):
    """Two paths of half the channels, one of them deep: (B, width_in, H, W) to (B, out, H, W)."""

    PUBLISHED: ClassVar[dict[str, str]] = {"way": "cv1", "inner": "m", "past": "cv2", "join": "cv3"}

    def __init__(
        self, width_in: int, out: int, repeats: int = 2, activation: str = "silu", norm: str = "steady"
    ) -> None:
        super().__init__()
        half = out // 2
        self.way = Conv(width_in, half, 1, activation=activation, norm=norm)
        self.inner = nn.Sequential(*(CrossBottleneck(half, 1.0, activation, norm) for _ in range(repeats)))
        self.past = Conv(width_in, half, 1, activation=activation, norm=norm)
        self.join = Conv(2 * half, out, 1, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.join(torch.cat((self.inner(self.way(x)), self.past(x)), 1))
        return y


class C3k2(nn.Module):
    """Inner blocks in a chain, all their outputs concatenated: (B, width_in, H, W) to (B, out, H, W).

    `deep`: the inner blocks are C3k; `expansion`: their channels as a share of `out`; `variant`: the scale.
    """

    PUBLISHED: ClassVar[dict[str, str]] = {"split": "cv1", "inner": "m", "join": "cv2"}

    def __init__(
        self,
        width_in: int,
        out: int,
        deep: bool = False,
        expansion: float = 0.5,
        repeats: int = 1,
        variant: str = "",
        activation: str = "silu",
        norm: str = "steady",
    ) -> None:
        super().__init__()
        c, deep = int(expansion * out), deep or variant in LARGE

        def inner() -> nn.Module:
            if deep:
                return C3k(c, c, 2, activation, norm)
            return CrossBottleneck(c, 0.5, activation, norm)

        self.split = Conv(width_in, 2 * c, 1, activation=activation, norm=norm)
        self.inner = nn.ModuleList(inner() for _ in range(repeats))
        self.join = Conv((2 + repeats) * c, out, 1, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        pieces = list(self.split(x).chunk(2, 1))
        for block in self.inner:
            pieces.append(block(pieces[-1]))
        y: Tensor = self.join(torch.cat(pieces, 1))
        return y


EXAMPLES = {
    CrossBottleneck: Example({}, [IMAGE], IMAGE),
    C3k: Example({"out": 8}, [IMAGE], (4, 8, 8, 8)),
    C3k2: Example({"out": 8, "repeats": 2}, [IMAGE], (4, 8, 8, 8)),
}
