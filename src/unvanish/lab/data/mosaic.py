"""Mosaics: scenes composed of four images, moved and scaled, with more objects at more sizes.

Notable:
- Four images meet at a point of the scene; the scene is scaled about its centre and shifted, all in one step:
  each image is scaled once and pasted at its place, cropped at the edges.
- Towards the end of a run (`until`) scenes are single images again, as in prediction.
- Turned, sheared and tilted scenes are laid on a larger canvas first (see `bending`); blended ones and pasted
  objects come last.
- A cropped object counts if at least a tenth of it is visible and its sides exceed two pixels.

References: Bochkovskiy et al. 2020 (mosaic, arXiv 2004.10934).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unvanish.lab.data.bending import MARGIN, STRAIGHT, Bending, bend_labels, bend_pixels, cut_labels
from unvanish.lab.data.boxes import Boxed, targets
from unvanish.lab.data.labels import Labels
from unvanish.lab.data.letterbox import GREY, Floats, Letterbox
from unvanish.lab.data.outlines import masks_of
from unvanish.lab.data.part import Batch, Draw, Indices, Part, Subset
from unvanish.lab.data.pasting import Scene, blend, join_labels, paste_objects
from unvanish.lab.data.problems import DataError

SIGHT, PIXELS = 0.1, 2.0  # the least visible share of an object, and pixels of its sides, that count


@dataclass(frozen=True)
class Mixing:
    """How scenes are mixed: the share of mosaics until epoch `until`, and shifts and scales of all.

    `translate`: in shares of the side; `scale`: from 1 - scale to 1 + scale; `mixup`: the share of scenes
    that are blended with another; `copy_paste`: that of outlined objects that are pasted once more.
    """

    mosaic: float = 1.0
    translate: float = 0.1
    scale: float = 0.5
    until: int = 0
    bending: Bending = STRAIGHT
    mixup: float = 0.0
    copy_paste: float = 0.0


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

    def scene(self, index: int, draw: Draw) -> Scene:
        """One scene, uint8 (3, S, S), with its labels."""
        made, how = self._compose(index, draw), self.how
        if how.mixup and float(torch.rand(1, generator=draw.generator)) < how.mixup:
            other = int(torch.randint(len(self), (1,), generator=draw.generator))
            made = blend(made, self._compose(other, draw), draw.generator)
        return paste_objects(made, how.copy_paste, draw.generator) if how.copy_paste else made

    def _compose(self, index: int, draw: Draw) -> Scene:
        """A scene of one image or of four, moved, scaled and bent."""
        chance = torch.rand(6, generator=draw.generator).tolist()
        whole = draw.epoch >= self.how.until or chance[0] >= self.how.mosaic
        others = torch.randint(len(self), (3,), generator=draw.generator).tolist()
        scale = 1 + self.how.scale * (2 * chance[1] - 1)
        shift = [self.how.translate * (2 * c - 1) for c in chance[2:4]]
        meeting = [0.5 + shift[i] + (0 if whole else scale * (chance[4 + i] - 0.5)) for i in (0, 1)]
        tiles = self._tiles([index] if whole else [index, *others], scale, meeting)
        if not self.how.bending.any:
            return self._lay(tiles), join_labels([self._move(tile) for tile in tiles])
        size = self.part.size
        matrix = self.how.bending.draw(size, draw.generator)
        canvas = self._lay(tiles, round(MARGIN * size))
        bent = [keep_visible(*bend_labels(self._shift(tile), matrix), size) for tile in tiles]
        return bend_pixels(canvas, matrix, size), join_labels(bent)

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

    def _lay(self, tiles: list[Tile], margin: int = 0) -> Tensor:
        """The scene of tiles, grey between them, with a margin of some pixels around it."""
        size = self.part.size + 2 * margin
        scene = torch.full((3, size, size), GREY, dtype=torch.uint8)
        for tile in tiles:
            (top, left), (rows, columns) = self._box(tile.index).corner, self._box(tile.index).inner
            image = self.part.image(tile.index)[:, top : top + rows, left : left + columns]
            high, wide = max(1, round(rows * tile.scale)), max(1, round(columns * tile.scale))
            scaled = interpolate(image[None], (high, wide), mode="bilinear", antialias=False)[0]
            paste(scene, scaled, round(tile.x) + margin, round(tile.y) + margin)
        return scene

    def _shift(self, tile: Tile) -> Labels:
        """The labels of a tile, in shares of the scene, also beyond its edges."""
        size, labels, box = self.part.size, self.part.records[tile.index].labels, self._box(tile.index)
        side = np.array(box.inner[::-1], np.float32) * tile.scale / size
        corner = np.array([tile.x, tile.y], np.float32) / size
        boxes = np.concatenate([labels.boxes[:, :2] * side + corner, labels.boxes[:, 2:] * side], 1)
        polygons = tuple((polygon * side + corner).astype(np.float32) for polygon in labels.polygons)
        return Labels(labels.classes, boxes.astype(np.float32), polygons)

    def _move(self, tile: Tile) -> Labels:
        """The labels of a tile, in shares of the scene, cut at its edges."""
        labels = self._shift(tile)
        whole = labels.boxes[:, 2:]
        if labels.polygons:
            return keep_visible(cut_labels(labels), whole, self.part.size)
        middle, half = labels.boxes[:, :2], whole / 2
        low, high = (middle - half).clip(0, 1), (middle + half).clip(0, 1)
        boxes = np.concatenate([(low + high) / 2, high - low], 1).astype(np.float32)
        return keep_visible(Labels(labels.classes, boxes), whole, self.part.size)


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


def mix_scenes(part: Part, how: Mixing) -> Part:
    """A part of mixed scenes; parts without boxes are returned unchanged.

    DataError if objects are to be pasted whose outlines are not known.
    """
    if isinstance(part, Subset) and isinstance(part.part, Boxed):
        part = part.part.some(part.kept)
    if not isinstance(part, Boxed):
        return part
    if how.copy_paste and not any(record.labels.polygons for record in part.records):
        raise DataError(
            f"copy_paste={how.copy_paste:g} needs outlines (class x1 y1 x2 y2 ...); these labels are boxes"
        )
    return Mixed(part, how)
