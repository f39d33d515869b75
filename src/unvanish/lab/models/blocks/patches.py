"""An image as a sequence: patches become tokens, a class token comes first, learned positions are added.

Notable: without `patch`, an image is cut into about 14 x 14 patches, like 224 pixels by patches of 16, so the
same network reads 8 x 8 digits and photographs. With `init: critical`, patches and positions have half of a
token's unit power each: published positions of .02 vanish next to patches of unit power, and a class token of
.02 before a norm makes the first gradients large.

References: Dosovitskiy et al. 2021 (ViT), equation 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unvanish.lab.models.blocks._example import IMAGE, SERIES, Example
from unvanish.lab.models.initialise import Begin

SIDE = 14
STD = 0.02  # of positions and class token, as published
HALF = 0.5**0.5


class PatchEmbedding(nn.Module):
    """(B, width_in, H, W) to (B, 1 + patches, width): the class token stands first.

    `size`: of the image in pixels, or (height, width); `patch`: pixels a side, None for about 14 patches a
    side.
    """

    SCALED = ("width",)

    def __init__(
        self, width_in: int, width: int, size: int | tuple[int, int], patch: int | None = None
    ) -> None:
        super().__init__()
        high, wide = (size, size) if isinstance(size, int) else size
        side = patch or max(1, round(min(high, wide) / SIDE))
        if min(high, wide) < side:
            raise ValueError(
                f"an image of {high} x {wide} pixels is smaller than a patch of {side}; take a smaller patch"
            )
        self.project = nn.Conv2d(width_in, width, side, side)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (high // side) * (wide // side), width))
        if self.positions.device.type != "meta":
            nn.init.normal_(self.token, std=STD)
            nn.init.normal_(self.positions, std=STD)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.project(x).flatten(2).transpose(1, 2)  # (B, T, C)
        if tokens.shape[1] + 1 != self.positions.shape[1]:
            made = self.positions.shape[1] - 1
            raise ValueError(f"this image has {tokens.shape[1]} patches, the network was built for {made}")
        return torch.cat((self.token.expand(x.shape[0], -1, -1), tokens), 1) + self.positions

    def initialise(self, begin: Begin) -> None:
        """Tokens of unit power from data of unit power; half of it comes from the positions."""
        begin.layer(self.project, reads="data", factor=HALF if begin.safe else 1.0)
        if begin.safe:
            nn.init.normal_(self.token, std=HALF)
            nn.init.normal_(self.positions, std=HALF)


class ClassToken(nn.Module):
    """The first token: (B, T, C) to (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


EXAMPLES = {
    PatchEmbedding: Example({"width": 8, "size": 8, "patch": 2}, [IMAGE], (4, 17, 8)),
    ClassToken: Example({}, [SERIES], (4, 8)),
}
