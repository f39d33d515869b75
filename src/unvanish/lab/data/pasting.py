"""Scenes with more on them: blended with another (mixup), or with objects pasted once more (copy-paste).

References: Zhang et al. 2018 (mixup, arXiv 1710.09412); Ghiasi et al. 2021 (copy-paste, arXiv 2012.07177).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unvanish.lab.data.labels import Labels, extent
from unvanish.lab.data.letterbox import Floats
from unvanish.lab.data.outlines import coverage

SPREAD, EDGE = 0.062, 0.3  # of the share of a blended scene: that of Beta(32, 32), and its least
COVERED = 0.3  # share of an object that another may cover when it is pasted
Scene = tuple[Tensor, Labels]  # uint8 (3, S, S), and what is on it


def blend(one: Scene, other: Scene, generator: torch.Generator) -> Scene:
    """Two scenes over each other, each about half, with the objects of both."""
    share = float((0.5 + SPREAD * torch.randn(1, generator=generator)).clamp(EDGE, 1 - EDGE))
    mixed = share * one[0].float() + (1 - share) * other[0].float()
    return mixed.round().to(torch.uint8), join_labels([one[1], other[1]])


def paste_objects(scene: Scene, share: float, generator: torch.Generator) -> Scene:
    """The scene with a share of its outlined objects pasted mirrored, where they cover little of others."""
    image, labels = scene
    mirrored, size, made = image.flip(-1), image.shape[-1], image.clone()
    classes, polygons, boxes = [], [], [find_corners(labels.boxes)]
    chosen = torch.rand(len(labels.polygons), generator=generator) < share
    for number in chosen.nonzero().flatten().tolist():
        turned = np.stack([1 - labels.polygons[number][:, 0], labels.polygons[number][:, 1]], 1)
        box = find_corners(extent(turned)[None])
        if measure_cover(box[0], np.concatenate(boxes)) > COVERED:
            continue
        paste_outline(made, mirrored, turned, size)
        boxes.append(box)
        polygons.append(turned.astype(np.float32))
        classes.append(labels.classes[number])
    if not polygons:
        return scene
    new = Labels(np.array(classes, np.int64), np.stack([extent(p) for p in polygons]), tuple(polygons))
    return made, join_labels([labels, new])


def paste_outline(image: Tensor, source: Tensor, polygon: Floats, size: int) -> None:
    """Copy the pixels of `source` (3, S, S) within an outline into `image`."""
    xy = polygon.astype(np.float64) * size
    low = np.floor(xy.min(0)).clip(0, size - 1).astype(int)
    high = np.ceil(xy.max(0)).clip(low + 1, size).astype(int)
    inside = coverage(xy - low, int(high[1] - low[1]), int(high[0] - low[0])) >= 0.5
    place = (slice(None), slice(low[1], high[1]), slice(low[0], high[0]))
    image[place] = torch.where(torch.from_numpy(inside), source[place], image[place])


def find_corners(boxes: Floats) -> Floats:
    """Corners (N, 4) of boxes x, y, w, h."""
    half = boxes[:, 2:] / 2
    made: Floats = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)
    return made


def measure_cover(box: Floats, others: Floats) -> float:
    """The largest share of another box (N, 4) that a box (4,) covers."""
    inner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    area = (others[:, 2:] - others[:, :2]).prod(1)
    shared = inner.clip(0).prod(1) / np.maximum(area, 1e-9)
    return float(shared.max()) if len(shared) else 0.0


def join_labels(parts: list[Labels]) -> Labels:
    """The labels of several scenes as one."""
    classes = np.concatenate([p.classes for p in parts])
    boxes = np.concatenate([p.boxes for p in parts])
    return Labels(classes, boxes, tuple(polygon for p in parts for polygon in p.polygons))
