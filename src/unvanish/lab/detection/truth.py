"""The objects of a batch, padded to the same number per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unvanish.lab.detection.boxes import corners


@dataclass(frozen=True)
class Truth:
    """Objects by image: classes (B, G), corners (B, G, 4), which are real (B, G), their rows in y (B, G)."""

    classes: Tensor
    boxes: Tensor
    real: Tensor
    rows: Tensor


def pad_truth(y: Tensor, images: int, size: tuple[float, float]) -> Truth:
    """Pad rows (M, 6), image, class, x, y, w, h in shares; corners are in units of `size` (w, h)."""
    image = y[:, 0].long()
    counts = torch.bincount(image, minlength=images)
    most = int(counts.max()) if len(y) else 0
    order = torch.argsort(image, stable=True)
    first = counts.cumsum(0) - counts
    slot = torch.arange(len(y), device=y.device) - first[image[order]]
    rows = torch.full((images, most), -1, dtype=torch.long, device=y.device)
    rows[image[order], slot] = order
    real = rows >= 0
    found = y[rows.clamp_min(0)] if most else y.new_zeros(images, 0, 6)
    unit = y.new_tensor([*size, *size])
    boxes = corners(found[..., 2:6]) * unit * real[..., None]
    return Truth(found[..., 1].long() * real, boxes, real, rows)
