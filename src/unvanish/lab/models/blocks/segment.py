"""The segmentation head: a detection head with coefficients, and prototypes that they mix into masks.

Notable: prototypes are computed once per image, at a quarter of its size; a mask is the sigmoid of a mixture.

References: Bolya et al. 2019 (YOLACT, arXiv 1904.02689).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unvanish.lab.models.blocks._example import IMAGE, Example
from unvanish.lab.models.blocks.conv import Conv
from unvanish.lab.models.blocks.detect import Detect


class Prototypes(nn.Module):
    """Masks to mix, at twice the resolution: (B, width_in, H, W) to (B, out, 2 H, 2 W)."""

    PUBLISHED: ClassVar[dict[str, str]] = {
        "first": "cv1", "enlarge": "upsample", "second": "cv2", "out": "cv3",
    }  # fmt: skip

    def __init__(
        self, width_in: int, width: int, out: int, activation: str = "silu", norm: str = "steady"
    ) -> None:
        super().__init__()
        self.first = Conv(width_in, width, 3, activation=activation, norm=norm)
        self.enlarge = nn.ConvTranspose2d(width, width, 2, 2)
        self.second = Conv(width, width, 3, activation=activation, norm=norm)
        self.out = Conv(width, out, 1, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.second(self.enlarge(self.first(x))))
        return y


class Segment(Detect):
    """Levels to maps (B, 64 + classes + masks, H, W) and prototypes (B, masks, 2 H, 2 W) of the finest level.

    In training a list, the prototypes last; decoded, (B, 4 + classes + masks, A) and the prototypes.
    """

    SCALED = ("prototypes",)
    PUBLISHED: ClassVar[dict[str, str]] = Detect.PUBLISHED | {"coefficients": "cv4", "prototypes": "proto"}

    def __init__(
        self,
        widths_in: Sequence[int],
        classes: int,
        masks: int = 32,
        prototypes: int = 256,
        *,
        legacy: bool = False,
        activation: str = "silu",
        norm: str = "steady",
    ) -> None:
        super().__init__(widths_in, classes, legacy=legacy, activation=activation, norm=norm)
        self.masks = masks
        hidden = max(widths_in[0] // 4, masks)

        def conv(width: int) -> Conv:
            return Conv(width, hidden, 3, activation=activation, norm=norm)

        self.coefficients = nn.ModuleList(
            nn.Sequential(conv(w), conv(hidden), nn.Conv2d(hidden, masks, 1)) for w in widths_in
        )
        self.prototypes = Prototypes(widths_in[0], prototypes, masks, activation, norm)

    def forward(self, levels: list[Tensor]) -> Any:
        mixing = zip(self.maps(levels), levels, self.coefficients, strict=True)
        maps = [torch.cat((m, coefficients(x)), 1) for m, x, coefficients in mixing]
        prototypes = self.prototypes(levels[0])
        if self.training or not self.decodes:
            return [*maps, prototypes]
        return self.decode(maps), prototypes

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Raw maps (without prototypes) to boxes, scores and coefficients, (B, 4 + classes + masks, A)."""
        boxes = super().decode([m[:, : -self.masks] for m in maps])
        mixing = torch.cat([m[:, -self.masks :].flatten(2) for m in maps], 2)
        return torch.cat((boxes, mixing), 1)


EXAMPLES = {
    Prototypes: Example({"width": 8, "out": 4}, [IMAGE], (4, 4, 16, 16)),
}
NO_EXAMPLE = (Segment,)  # its outputs are maps of three sizes, tested with segmentation
