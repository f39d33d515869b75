"""Letterboxing: scales an image and its boxes into a square, keeps their aspect ratio, and pads with grey.

Boxes are rows (x, y, w, h), centre and size, polygons rows of (x, y), both in shares of the image's width and
height, as in YOLO's label files. Both maps have an inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unvanish.lab.data.limits import open_picture
from unvanish.lab.data.pixels import turn_upright

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = npt.NDArray[np.float32]
GREY = 114


@dataclass(frozen=True)
class Letterbox:
    """The place of an image of (height, width) `source` in a square of side `size`."""

    source: tuple[int, int]
    size: int
    enlarge: bool = True

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the image inside the square, in pixels."""
        rows, columns = self.source
        scale = min(self.size / rows, self.size / columns)
        scale = scale if self.enlarge else min(scale, 1.0)
        return max(1, round(rows * scale)), max(1, round(columns * scale))

    @property
    def corner(self) -> tuple[int, int]:
        """Pixels above and left of the image inside the square."""
        rows, columns = self.inner
        return round((self.size - rows) / 2 - 0.1), round((self.size - columns) / 2 - 0.1)

    def points(self, xy: Floats) -> Floats:
        """Convert points (..., 2) from shares of the image to shares of the square."""
        scale, shift = self._affine()
        return (xy * scale + shift).astype(np.float32)

    def points_back(self, xy: Floats) -> Floats:
        """Convert points (..., 2) from shares of the square to shares of the image."""
        scale, shift = self._affine()
        return ((xy - shift) / scale).astype(np.float32)

    def boxes(self, xywh: Floats) -> Floats:
        """Convert boxes (N, 4) from shares of the image to shares of the square."""
        scale, _ = self._affine()
        return np.concatenate([self.points(xywh[:, :2]), (xywh[:, 2:] * scale).astype(np.float32)], 1)

    def boxes_back(self, xywh: Floats) -> Floats:
        """Convert boxes (N, 4) from shares of the square to shares of the image."""
        scale, _ = self._affine()
        return np.concatenate([self.points_back(xywh[:, :2]), (xywh[:, 2:] / scale).astype(np.float32)], 1)

    def _affine(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scale and shift of (x, y) from shares of the image to shares of the square."""
        scale = np.array(self.inner[::-1], np.float64) / self.size
        return scale, np.array(self.corner[::-1], np.float64) / self.size


def letterbox_file(path: Path, size: int) -> Tensor:
    """Letterbox an image file to uint8 (3, size, size), padded with grey; OSError if it is broken."""
    with open_picture(path, ("RGB", size)) as image:
        return letterbox_image(image, size)


def letterbox_image(image: Image, size: int) -> Tensor:
    """Letterbox a PIL image to uint8 (3, size, size), upright, padded with grey."""
    from PIL import Image

    upright = turn_upright(image, "RGB")
    box = Letterbox((upright.height, upright.width), size)
    rows, columns = box.inner
    scaled = upright.resize((columns, rows), Image.Resampling.BILINEAR)
    canvas = np.full((size, size, 3), GREY, np.uint8)
    top, left = box.corner
    canvas[top : top + rows, left : left + columns] = np.asarray(scaled)
    return torch.from_numpy(canvas.transpose(2, 0, 1).copy())
