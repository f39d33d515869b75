"""The detection head: at every cell of every level, distances to a box's four sides and a score per class.

Notable:
- Anchor-free: a cell's own centre is its anchor. A distance is the expectation of 16 bins (distribution focal
  loss), so the head can express that a side is uncertain.
- In training mode it gives the raw maps of the levels; in evaluation mode boxes and scores, unless `decodes`
  is False.
- Scores start at the share of cells with an object, so that the many empty ones do not dominate the loss.

References: Tian et al. 2019 (FCOS, arXiv 1904.01355); Li et al. 2020 (distribution focal loss, arXiv
2006.04388); Lin et al. 2017 (prior of the scores, arXiv 1708.02002).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from unvanish.lab.models.blocks.conv import Conv

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin

BINS, SIDES = 16, 4
FIRST = 8.0  # default stride of the first level in pixels; doubled from level to level
OBJECTS, IMAGE = 5.0, 640.0  # objects expected on an image of this size
DISTANCE = 1.0  # bias of the box branch


class Expectation(nn.Module):
    """The mean of a distribution over bins 0, 1, ...: logits (B, bins, 4, A) to (B, 4, A); frozen."""

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        self.conv = nn.Conv2d(bins, 1, 1, bias=False).requires_grad_(False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.arange(bins, dtype=torch.float).view(1, bins, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.softmax(1))[:, 0]
        return y


class Detect(nn.Module):
    """Levels (B, C, H, W), finest first, to maps (B, 64 + classes, H, W), or to (B, 4 + classes, A) decoded.

    Decoded: centre, width and height in pixels, then scores from 0 to 1; A cells of all levels. `legacy`: the
    branch of the classes is one of whole convolutions, as detectors of C2f and C3 blocks have it.
    """

    PUBLISHED: ClassVar[dict[str, str]] = {"box": "cv2", "score": "cv3", "expectation": "dfl"}

    def __init__(
        self,
        widths_in: Sequence[int],
        classes: int,
        *,
        legacy: bool = False,
        activation: str = "silu",
        norm: str = "steady",
    ) -> None:
        super().__init__()
        self.classes, self.decodes = classes, True
        self.strides = tuple(FIRST * 2**level for level in range(len(widths_in)))  # pixels
        box = max(BINS, widths_in[0] // 4, SIDES * BINS)
        score = max(widths_in[0], min(classes, 100))

        def conv(width: int, out: int, kernel: int, groups: int = 1) -> Conv:
            return Conv(width, out, kernel, groups=groups, activation=activation, norm=norm)

        self.box = nn.ModuleList(
            nn.Sequential(conv(w, box, 3), conv(box, box, 3), nn.Conv2d(box, SIDES * BINS, 1))
            for w in widths_in
        )

        def whole(width: int) -> list[nn.Module]:
            return [conv(width, score, 3), conv(score, score, 3)]

        def apart(width: int) -> list[nn.Module]:
            return [
                nn.Sequential(conv(width, width, 3, width), conv(width, score, 1)),
                nn.Sequential(conv(score, score, 3, score), conv(score, score, 1)),
            ]

        self.score = nn.ModuleList(
            nn.Sequential(*(whole(w) if legacy else apart(w)), nn.Conv2d(score, classes, 1))
            for w in widths_in
        )
        self.expectation = Expectation()
        self.begin_biases()

    def place(self, strides: Sequence[float]) -> None:
        """Set the stride of each level in pixels, and start the biases by it."""
        self.strides = tuple(strides)
        self.begin_biases()

    @torch.no_grad()
    def begin_biases(self) -> None:
        """Start scores at log(5 / classes / cells of an image of 640 pixels), boxes at 1."""
        for box, score, stride in zip(self.box, self.score, self.strides, strict=True):
            cells = (IMAGE / stride) ** 2
            box[-1].bias.fill_(DISTANCE)  # type: ignore[index]
            score[-1].bias.fill_(math.log(OBJECTS / self.classes / cells))  # type: ignore[index]

    def initialise(self, begin: Begin) -> None:
        """The same biases for every method."""
        self.begin_biases()

    def forward(self, levels: list[Tensor]) -> Any:
        maps = self.maps(levels)
        return maps if self.training or not self.decodes else self.decode(maps)

    def maps(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """The raw maps of the levels: logits of the bins of distances, then of the classes."""
        branches = zip(levels, self.box, self.score, strict=True)
        return [torch.cat((box(x), score(x)), 1) for x, box, score in branches]

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Raw maps to boxes in pixels and scores, (B, 4 + classes, A)."""
        centres, sizes = anchors(maps, self.strides)
        flat = torch.cat([m.flatten(2) for m in maps], 2)
        bins, logits = flat[:, : SIDES * BINS], flat[:, SIDES * BINS :]
        logits_of_bins = bins.reshape(bins.shape[0], SIDES, BINS, -1).transpose(1, 2)
        sides = self.expectation(logits_of_bins)  # (B, 4, A): left, top, right, bottom
        near, far = sides.chunk(2, 1)
        boxes = torch.cat((centres + (far - near) / 2, near + far), 1) * sizes
        return torch.cat((boxes, logits.sigmoid()), 1)


def anchors(maps: Sequence[Tensor], strides: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Centres (2, A) of all cells, x and y in units of their level, and the stride of the level, (A,)."""
    points, sizes = [], []
    for level, stride in zip(maps, strides, strict=True):
        rows, columns = level.shape[-2:]
        y = torch.arange(rows, device=level.device, dtype=level.dtype) + 0.5
        x = torch.arange(columns, device=level.device, dtype=level.dtype) + 0.5
        points.append(torch.stack((x.repeat(rows), y.repeat_interleave(columns))))
        sizes.append(level.new_full((rows * columns,), stride))
    return torch.cat(points, 1), torch.cat(sizes)


NO_EXAMPLE = (Expectation, Detect)  # their outputs are maps of three sizes, tested with detection
