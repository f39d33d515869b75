"""Turned, sheared and tilted scenes: one projective map for pixels, boxes and outlines.

Notable:
- Scenes are drawn on a canvas twice as wide, so that turned ones are not cut before they are turned.
- An object is mapped by its outline, or by its box's corners without one, cut by the scene's edges, and its
  new box is the extent of what is left: exact for an outline, and somewhat wide for a turned box of
  something round.
- Coordinates are shares of the scene, (0.5, 0.5) its middle.

References: Sutherland and Hodgman 1974 (cutting a polygon by a line).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unvanish.lab.data.labels import Labels, extent
from unvanish.lab.data.letterbox import GREY, Floats

Matrix = npt.NDArray[np.float64]
MARGIN = 0.5  # of the canvas around the scene, in shares of it
TILT = 0.8  # largest |g| + |h| over a scene: less than 1, or its edge lies at infinity
NEAR = 0.1  # least denominator of a point that counts
Edge = tuple[float, float, float]  # (a, b, c): points with a x + b y + c >= 0 are kept


@dataclass(frozen=True)
class Bending:
    """The largest turn and shear, in degrees, and tilt, in change of scale a pixel."""

    degrees: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0

    @property
    def any(self) -> bool:
        """Whether anything is bent."""
        return max(self.degrees, self.shear, self.perspective) > 0

    def draw(self, size: int, generator: torch.Generator) -> Matrix:
        """A random map (3, 3) of scenes of `size` pixels."""
        turn, x, y, g, h = (2 * torch.rand(5, generator=generator) - 1).tolist()
        tilt = min(self.perspective * size, TILT)
        angle = math.radians(self.degrees * turn)
        across, down = (math.tan(math.radians(self.shear * v)) for v in (x, y))
        turned = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        middle, back = np.eye(3), np.eye(3)
        middle[:2, 2], back[:2, 2] = -0.5, 0.5
        linear = np.eye(3)
        linear[:2, :2] = np.array([[1, across], [down, 1]]) @ turned
        linear[2, :2] = tilt * g, tilt * h
        made: Matrix = back @ linear @ middle
        return made


STRAIGHT = Bending()


def bend_pixels(canvas: Tensor, matrix: Matrix, size: int) -> Tensor:
    """The scene (3, size, size) of a canvas, uint8, that reaches `MARGIN` beyond it on every side."""
    from PIL import Image

    pixels, shift = np.diag([size, size, 1.0]), np.eye(3)
    shift[:2, 2] = round(MARGIN * size)
    back = shift @ pixels @ np.linalg.inv(matrix) @ np.linalg.inv(pixels)
    parts = (back / back[2, 2]).ravel()[:8].tolist()
    drawn = Image.fromarray(canvas.permute(1, 2, 0).contiguous().numpy())
    bent = drawn.transform(
        (size, size), Image.Transform.PERSPECTIVE, parts, Image.Resampling.BILINEAR, fillcolor=(GREY,) * 3
    )
    return torch.from_numpy(np.asarray(bent).transpose(2, 0, 1).copy())


def bend_labels(labels: Labels, matrix: Matrix) -> tuple[Labels, Floats]:
    """The labels of a bent scene, cut at its edges, and the objects' sides (N, 2) before they were cut."""
    shapes = labels.polygons or tuple(map(list_corners, labels.boxes))
    g, h, w = matrix[2].tolist()
    seen = [*list_edges(-MARGIN, 1 + MARGIN), (g, h, w - NEAR)]
    mapped = [project(cut_polygon(shape, seen), matrix) for shape in shapes]
    return cut_labels(
        Labels(labels.classes, labels.boxes, tuple(mapped)), bool(labels.polygons)
    ), measure_sides(mapped)


def cut_labels(labels: Labels, outlined: bool = True) -> Labels:
    """The labels of outlines cut at the scene's edges, with their boxes; `outlined`: they keep outlines."""
    cut = [cut_polygon(polygon, list_edges(0, 1)) for polygon in labels.polygons]
    boxes = np.array([extent(p) if len(p) else np.zeros(4) for p in cut], np.float32).reshape(-1, 4)
    kept = tuple(p if len(p) else np.zeros((1, 2), np.float32) for p in cut)
    return Labels(labels.classes, boxes, kept if outlined else ())


def list_corners(box: Floats) -> Floats:
    """The corners (4, 2) of a box x, y, w, h."""
    (x, y), (right, down) = box[:2], box[2:] / 2
    across, along = (x - right, x + right, x + right, x - right), (y - down, y - down, y + down, y + down)
    return np.stack([across, along], 1).astype(np.float32)


def measure_sides(shapes: list[Floats]) -> Floats:
    """The width and height (N, 2) of the extent of each shape; 0 for an empty one."""
    found = [np.ptp(shape, 0) if len(shape) else np.zeros(2) for shape in shapes]
    return np.array(found, np.float32).reshape(-1, 2)


def project(points: Floats, matrix: Matrix) -> Floats:
    """Points (n, 2) mapped."""
    found = np.concatenate([points.astype(np.float64), np.ones((len(points), 1))], 1) @ matrix.T
    return (found[:, :2] / found[:, 2:]).astype(np.float32)


def list_edges(low: float, high: float) -> list[Edge]:
    """The edges of the square from `low` to `high`."""
    return [(1, 0, -low), (-1, 0, high), (0, 1, -low), (0, -1, high)]


def cut_polygon(points: Floats, edges: list[Edge]) -> Floats:
    """The part of a polygon (n, 2) within all edges; (0, 2) if there is none."""
    found = points.astype(np.float64)
    for a, b, c in edges:
        if not len(found):
            break
        side = found @ np.array([a, b]) + c
        if (side >= 0).all():
            continue
        following, beyond = np.roll(found, -1, 0), np.roll(side, -1)
        kept = []
        for point, other, here, there in zip(found, following, side, beyond, strict=True):
            if here >= 0:
                kept.append(point)
            if (here >= 0) != (there >= 0):
                kept.append(point + (other - point) * (here / (here - there)))
        found = np.array(kept, np.float64).reshape(-1, 2)
    return found.astype(np.float32)
