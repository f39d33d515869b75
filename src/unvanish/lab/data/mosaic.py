"""Mosaics: scenes composed of four images, moved and scaled, with more objects at more sizes.

Notable:
- Four images meet at a point of the scene; the scene is scaled about its centre and shifted, all in one step:
  each image is scaled once and pasted at its place, cropped at the edges.
- Towards the end of a run (`until`) scenes are single images again, as in prediction.
- A cropped object counts if at least a tenth of it is visible and its sides exceed two pixels.

References: Bochkovskiy et al. 2020 (mosaic, arXiv 2004.10934).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unvanish.lab.data.boxes import Boxed, targets
from unvanish.lab.data.labels import Labels, extent
from unvanish.lab.data.letterbox import GREY, Floats, Letterbox
from unvanish.lab.data.outlines import masks_of
from unvanish.lab.data.part import Batch, Draw, Indices, Part, Subset

SIGHT, PIXELS = 0.1, 2.0  # the least visible share of an object, and pixels of its sides, that count


@dataclass(frozen=True)
class Mixing:
    """How scenes are mixed: the share of mosaics until epoch `until`, and shifts and scales of all.

    `translate`: in shares of the side; `scale`: from 1 - scale to 1 + scale.
    """

    mosaic: float = 1.0
    translate: float = 0.1
    scale: float = 0.5
    until: int = 0


@dataclass(frozen=True)
class Tile:
    """An image scaled by `scale` with its top left corner at (x, y) of the scene, in pixels."""

    index: int
    x: float
    y: float
    scale: float


class Mixed(Part):
    """The scenes of a part, mixed differently in every epoch."""

    def __init__(self, part: Boxed, how: Mixing) -> None:
        self.part, self.how = part, how
        self.in_memory = part.in_memory

    def __len__(self) -> int:
        return len(self.part)

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        scenes = [self.scene(int(i), draw) for i in indices]
        x = torch.stack([image for image, _ in scenes])
        rows = torch.cat([targets(number, labels) for number, (_, labels) in enumerate(scenes)])
        if not self.part.masked:
            return x, rows
        return x, (rows, masks_of([p for _, labels in scenes for p in labels.polygons], self.part.size))

    def scene(self, index: int, draw: Draw) -> tuple[Tensor, Labels]:
        """One scene, uint8 (3, S, S), with its labels."""
        chance = torch.rand(6, generator=draw.generator).tolist()
        whole = draw.epoch >= self.how.until or chance[0] >= self.how.mosaic
        others = torch.randint(len(self), (3,), generator=draw.generator).tolist()
        scale = 1 + self.how.scale * (2 * chance[1] - 1)
        shift = [self.how.translate * (2 * c - 1) for c in chance[2:4]]
        meeting = [0.5 + shift[i] + (0 if whole else scale * (chance[4 + i] - 0.5)) for i in (0, 1)]
        tiles = self._tiles([index] if whole else [index, *others], scale, meeting)
        return self._lay(tiles), join_labels([self._move(tile) for tile in tiles])

    def _tiles(self, indices: list[int], scale: float, meeting: list[float]) -> list[Tile]:
        """The places of images: one in the centre, or four with a corner each at the meeting point."""
        size, made = self.part.size, []
        for place, index in enumerate(indices):
            high, wide = (scale * side for side in self._box(index).inner)
            left, above = (0.5, 0.5) if len(indices) == 1 else (float(place % 2 == 0), float(place < 2))
            made.append(Tile(index, meeting[0] * size - left * wide, meeting[1] * size - above * high, scale))
        return made

    def _box(self, index: int) -> Letterbox:
        return Letterbox(self.part.records[index].shape, self.part.size)

    def _lay(self, tiles: list[Tile]) -> Tensor:
        """The scene of tiles, grey between them."""
        size = self.part.size
        scene = torch.full((3, size, size), GREY, dtype=torch.uint8)
        for tile in tiles:
            (top, left), (rows, columns) = self._box(tile.index).corner, self._box(tile.index).inner
            image = self.part.image(tile.index)[:, top : top + rows, left : left + columns]
            high, wide = max(1, round(rows * tile.scale)), max(1, round(columns * tile.scale))
            scaled = interpolate(image[None], (high, wide), mode="bilinear", antialias=False)[0]
            paste(scene, scaled, round(tile.x), round(tile.y))
        return scene

    def _move(self, tile: Tile) -> Labels:
        """The labels of a tile, in shares of the scene, cropped at its edges."""
        size, labels, box = self.part.size, self.part.records[tile.index].labels, self._box(tile.index)
        side = np.array(box.inner[::-1], np.float32) * tile.scale / size
        corner = np.array([tile.x, tile.y], np.float32) / size
        middle, half = labels.boxes[:, :2] * side + corner, labels.boxes[:, 2:] * side / 2
        low, high = (middle - half).clip(0, 1), (middle + half).clip(0, 1)
        polygons = tuple((polygon * side + corner).clip(0, 1) for polygon in labels.polygons)
        boxes = np.concatenate([(low + high) / 2, high - low], 1).astype(np.float32)
        if polygons:
            boxes = np.stack([extent(p) for p in polygons])
        whole = (2 * half).astype(np.float32)
        return keep_visible(Labels(labels.classes, boxes, polygons), whole, size)


def paste(scene: Tensor, image: Tensor, x: int, y: int) -> None:
    """Paste an image (3, h, w) on a scene (3, H, W) with its corner at (x, y), cropped at the edges."""
    rows, columns = scene.shape[1:]
    top, left = max(0, y), max(0, x)
    bottom, right = min(rows, y + image.shape[1]), min(columns, x + image.shape[2])
    if bottom > top and right > left:
        scene[:, top:bottom, left:right] = image[:, top - y : bottom - y, left - x : right - x]


def keep_visible(labels: Labels, whole: Floats, size: int) -> Labels:
    """The labels of visible objects; `whole`: their sides (N, 2) before cropping."""
    seen = labels.boxes[:, 2:]
    share = seen.prod(1) / np.maximum(whole.prod(1), 1e-9)
    good = np.flatnonzero((share >= SIGHT) & (seen * size > PIXELS).all(1))
    polygons = tuple(labels.polygons[i] for i in good) if labels.polygons else ()
    return Labels(labels.classes[good], labels.boxes[good], polygons)


def join_labels(parts: list[Labels]) -> Labels:
    """The labels of several tiles as one."""
    classes = np.concatenate([p.classes for p in parts])
    boxes = np.concatenate([p.boxes for p in parts])
    return Labels(classes, boxes, tuple(polygon for p in parts for polygon in p.polygons))


def mix_scenes(part: Part, how: Mixing) -> Part:
    """A part of mixed scenes; parts without boxes are returned unchanged."""
    if isinstance(part, Subset) and isinstance(part.part, Boxed):
        part = part.part.some(part.kept)
    return Mixed(part, how) if isinstance(part, Boxed) else part
