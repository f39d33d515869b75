"""Metrics of a segmenter: those of a detector's boxes, and the same of masks.

Notable: masks are compared at the network's resolution, a quarter of the image's side; each is cropped to its
box.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unvanish.lab.detection.boxes import corners
from unvanish.lab.detection.mask_loss import resize_masks
from unvanish.lab.detection.masks import inside_boxes, mix_masks
from unvanish.lab.detection.metrics import CONFIDENCE, OVERLAP, DetectionMetrics
from unvanish.lab.detection.ranking import Ranking
from unvanish.lab.detection.raw_maps import decode_maps, raw_maps
from unvanish.lab.detection.suppression import detections

MOST = 100  # masks of an image that are judged


class SegmentationMetrics(DetectionMetrics):
    """The metrics of a detector's boxes, and the same of masks; the confusion matrix is that of boxes."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__(classes, size)
        self.ranking_of_masks = Ranking(classes)

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self.ranking_of_masks = Ranking(self.classes)

    @torch.no_grad()
    def update(self, output: Any, y: Any) -> None:
        """Count a batch: raw maps with prototypes, or the decoded pair; rows (M, 6) and masks (M, S, S)."""
        rows, masks = y[0].cpu(), y[1].cpu()
        decoded, prototypes = self._read(output)
        found = detections(decoded, self.classes, CONFIDENCE, OVERLAP, MOST, several=True)
        high, wide = prototypes.shape[-2:]
        for image, kept in enumerate(found):
            own = rows[:, 0] == image
            real = torch.cat((corners(rows[own, 2:6]) * self.size, rows[own, 1:2]), 1)
            true, made = resize_masks(masks[own], high, wide) > 0.5, self._masks(kept, prototypes[image])
            truth, seen = self._count(kept, real)
            self.ranking_of_masks.add(kept[:, 4], kept[:, 5], real[:, 4], mask_iou(made, true))
            self.truth += with_masks(truth, encode_masks(true))
            self.found += with_masks(seen, encode_masks(made))
            self.images += 1

    def _read(self, output: Any) -> tuple[Tensor, Tensor]:
        """The decoded output and the prototypes, on the CPU."""
        if isinstance(output[0], Tensor) and output[0].ndim == 3:
            decoded, prototypes = output
        else:
            *maps, prototypes = raw_maps(output)
            decoded = decode_maps(maps, self.size, prototypes.shape[1])
        return decoded.float().cpu(), prototypes.float().cpu()

    def _masks(self, kept: Tensor, prototypes: Tensor) -> Tensor:
        """The masks (n, H, W) of rows (n, 6 + E)."""
        high, wide = prototypes.shape[-2:]
        cut = inside_boxes(kept[:, :4] * (wide / self.size), high, wide)
        return (mix_masks(kept[:, 6:], prototypes) > 0) & cut

    def compute(self) -> dict[str, float]:
        """The numbers so far; none without images."""
        return super().compute() | (self._of_masks(0) if self.images else {})

    def tables(self) -> dict[str, Tensor]:
        """The tables of boxes, and those of masks, whose names begin with `mask`."""
        return super().tables() | (self._of_masks(1) if self.images else {})

    def _of_masks(self, part: int) -> dict[str, Any]:
        """The numbers (0) or tables (1) of masks."""
        found: Any = self._report("segm", self.ranking_of_masks)[part]
        return {f"mask {key}": value for key, value in found.items()}


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (n, g) of masks (n, H, W) and (g, H, W), 0 if both are empty."""
    left, right = a.flatten(1).double(), b.flatten(1).double()
    both = left @ right.T
    return both / (left.sum(1)[:, None] + right.sum(1)[None] - both).clamp_min(1)


def with_masks(boxes: list[dict[str, Any]], masks: list[Any]) -> list[dict[str, Any]]:
    """COCO's annotations of boxes with their masks."""
    return [{**box, "segmentation": mask} for box, mask in zip(boxes, masks, strict=True)]


def encode_masks(masks: Tensor) -> list[Any]:
    """Encode masks (n, H, W) as run lengths."""
    from faster_coco_eval.core import mask as codes

    if not len(masks):
        return []
    stacked = np.asfortranarray(masks.permute(1, 2, 0).to(torch.uint8).numpy())
    made: list[Any] = codes.encode(stacked)
    return made
