"""Batches as narrow as their images: the grey bars that all images of a batch share are cut off.

Notable: images of like shape come together, as texts of like length do. Both sides stay multiples of 32
pixels, so the cut lies on whole pixels of masks, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unvanish.lab.data.boxes import Boxed
from unvanish.lab.data.letterbox import Letterbox
from unvanish.lab.data.mosaic import PIXELS, SIGHT, Mixed
from unvanish.lab.data.part import Batch, Draw, Indices, Part, Subset
from unvanish.lab.detection.boxes import centre_size, corners
from unvanish.lab.detection.masks import COARSE

STRIDE = 32  # pixels that divide both sides


class Narrow(Part):
    """A part of scenes whose batches lose the bars that all of their images have."""

    def __init__(self, part: Boxed | Mixed) -> None:
        self.part = part
        self.boxed: Boxed = part.part if isinstance(part, Mixed) else part
        self.in_memory = part.in_memory
        inner = [Letterbox(record.shape, self.boxed.size).inner for record in self.boxed.records]
        self.inner = np.array(inner, np.int64).reshape(-1, 2)  # height and width within the square

    @property
    def lengths(self) -> Indices | None:
        """Height over width in thousandths: a batch has images of like shape."""
        return (1000 * self.inner[:, 0] // self.inner[:, 1]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.part)

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        x, y = self.part.batch(indices, draw)
        size, most = self.boxed.size, self.inner[indices].max(0)
        high, wide = (min(size, int(-(-side // STRIDE) * STRIDE)) for side in most)
        return cut_middle(x, y, high, wide)


def cut_middle(x: Tensor, y: Any, high: int, wide: int) -> Batch:
    """The middle (high, wide) of squares (B, C, S, S), with rows in shares of it, and masks; what is out of
    sight is left out.
    """
    size = x.shape[-1]
    top, left = (size - high) // 2, (size - wide) // 2
    rows, masks = y if isinstance(y, tuple) else (y, None)
    unit = rows.new_tensor([wide, high, wide, high])
    whole = (corners(rows[:, 2:6]) * size - rows.new_tensor([left, top, left, top])) / unit
    seen = whole.clamp(0, 1)
    share = (seen[:, 2:] - seen[:, :2]).prod(1) / (whole[:, 2:] - whole[:, :2]).prod(1).clamp_min(1e-9)
    sides = (seen[:, 2:] - seen[:, :2]) * unit[:2]
    good = (share >= SIGHT) & (sides > PIXELS).all(1)
    moved = torch.cat((rows[:, :2], centre_size(seen)), 1)[good]
    x = x[:, :, top : top + high, left : left + wide].contiguous()
    if masks is None:
        return x, moved
    part = (slice(top // COARSE, (top + high) // COARSE), slice(left // COARSE, (left + wide) // COARSE))
    return x, (moved, masks[good][:, part[0], part[1]].contiguous())


def narrow_scenes(part: Part) -> Part:
    """A part with narrow batches; parts without boxes are returned unchanged."""
    if isinstance(part, Subset) and isinstance(part.part, Boxed):
        part = part.part.some(part.kept)
    return Narrow(part) if isinstance(part, (Boxed, Mixed)) else part
