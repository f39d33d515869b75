"""From outlines to masks: the pixels of which an object covers at least half.

Notable: an outline is drawn within its own extent at four times the resolution of its mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unvanish.lab.data.letterbox import Floats
from unvanish.lab.detection.masks import COARSE

FINE = 4  # parts of a pixel, along each side


def masks_of(polygons: Sequence[Floats], size: int) -> Tensor:
    """Masks, uint8 (N, S, S), of polygons in shares of an image of `size` pixels; S is a quarter of it."""
    side = max(1, size // COARSE)
    made = np.zeros((len(polygons), side, side), np.uint8)
    for mask, polygon in zip(made, polygons, strict=True):
        xy = polygon.astype(np.float64) * side
        low = np.floor(xy.min(0)).clip(0, side - 1).astype(int)
        high = np.ceil(xy.max(0)).clip(low + 1, side).astype(int)
        covered = coverage(xy - low, int(high[1] - low[1]), int(high[0] - low[0]))
        mask[low[1] : high[1], low[0] : high[0]] = covered >= 0.5
    return torch.from_numpy(made)


def coverage(xy: npt.NDArray[np.float64], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """The share of each pixel (rows, columns) inside an outline of points (N, 2) in pixels."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (columns * FINE, rows * FINE))
    corners = [(float(x) * FINE - 0.5, float(y) * FINE - 0.5) for x, y in xy]
    ImageDraw.Draw(canvas).polygon(corners, fill=1)
    cells = np.asarray(canvas, np.float64).reshape(rows, FINE, columns, FINE)
    found: npt.NDArray[np.float64] = cells.mean((1, 3))
    return found
