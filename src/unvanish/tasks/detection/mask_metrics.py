"""How well a segmenter outlines what it finds: mAP of masks beside that of boxes.

Notable: masks are compared where they are made, at a quarter of the image's side; each is cut to its own box.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unvanish.tasks.detection.boxes import corners
from unvanish.tasks.detection.mask_loss import fitted
from unvanish.tasks.detection.masks import inside, mixed
from unvanish.tasks.detection.metrics import CONFIDENCE, OVERLAP, DetectionMetrics, as_coco
from unvanish.tasks.detection.precision import mean_average_precision
from unvanish.tasks.detection.reading import decoded, raw
from unvanish.tasks.detection.suppression import detections

MOST = 100  # masks of an image that are judged


class SegmentationMetrics(DetectionMetrics):
    """mAP50-95 and mAP50 of boxes and of masks."""

    @torch.no_grad()
    def update(self, output: Any, y: Any) -> None:
        """Count a batch: raw maps with prototypes, or the decoded pair; rows (M, 6) and masks (M, S, S)."""
        rows, masks = y[0].cpu(), y[1].cpu()
        said, prototypes = self._said(output)
        found = detections(said, self.classes, CONFIDENCE, OVERLAP, MOST, several=True)
        high, wide = prototypes.shape[-2:]
        for image, kept in enumerate(found):
            own = rows[:, 0] == image
            real = torch.cat((corners(rows[own, 2:6]) * self.size, rows[own, 1:2]), 1)
            true = encoded(fitted(masks[own], high, wide) > 0.5)
            self.truth += with_masks(as_coco(self.images + image, real), true)
            boxes = kept[:, [0, 1, 2, 3, 5]]
            seen = as_coco(self.images + image, boxes, kept[:, 4].tolist())
            self.found += with_masks(seen, encoded(self._masks(kept, prototypes[image])))
        self.images += len(found)

    def _said(self, output: Any) -> tuple[Tensor, Tensor]:
        """The decoded output and the prototypes, on the CPU."""
        if isinstance(output[0], Tensor) and output[0].ndim == 3:
            said, prototypes = output
        else:
            *maps, prototypes = raw(output)
            said = decoded(maps, self.size, prototypes.shape[1])
        return said.float().cpu(), prototypes.float().cpu()

    def _masks(self, kept: Tensor, prototypes: Tensor) -> Tensor:
        """The masks (n, H, W) of rows (n, 6 + E)."""
        high, wide = prototypes.shape[-2:]
        cut = inside(kept[:, :4] * (wide / self.size), high, wide)
        return (mixed(kept[:, 6:], prototypes) > 0) & cut

    def compute(self) -> dict[str, float]:
        """The numbers so far; none without images."""
        if not self.images:
            return {}
        both = mean_average_precision(self.truth, self.found, self.images, self.classes, "segm")
        return super().compute() | dict(zip(("mask mAP50-95", "mask mAP50"), both, strict=True))


def with_masks(boxes: list[dict[str, Any]], masks: list[Any]) -> list[dict[str, Any]]:
    """COCO's annotations of boxes with their masks."""
    return [{**box, "segmentation": mask} for box, mask in zip(boxes, masks, strict=True)]


def encoded(masks: Tensor) -> list[Any]:
    """Masks (n, H, W) as run lengths."""
    from faster_coco_eval.core import mask as codes

    if not len(masks):
        return []
    stacked = np.asfortranarray(masks.permute(1, 2, 0).to(torch.uint8).numpy())
    made: list[Any] = codes.encode(stacked)
    return made
