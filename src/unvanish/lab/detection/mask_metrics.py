"""How well a segmenter outlines what it finds: what is said of boxes, of masks.

Notable: masks are compared where they are made, at a quarter of the image's side; each is cut to its own box.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unvanish.lab.detection.boxes import corners
from unvanish.lab.detection.mask_loss import fitted
from unvanish.lab.detection.masks import inside, mixed
from unvanish.lab.detection.metrics import CONFIDENCE, OVERLAP, DetectionMetrics
from unvanish.lab.detection.ranking import Ranking
from unvanish.lab.detection.reading import decoded, raw
from unvanish.lab.detection.suppression import detections

MOST = 100  # masks of an image that are judged


class SegmentationMetrics(DetectionMetrics):
    """The numbers and tables of a detector's boxes, and the same of masks; the confusion is that of boxes."""

    def reset(self) -> None:
        super().reset()
        self.ranking_of_masks = Ranking(self.classes)

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
            true, made = fitted(masks[own], high, wide) > 0.5, self._masks(kept, prototypes[image])
            truth, seen = self._counted(kept, real)
            self.ranking_of_masks.add(kept[:, 4], kept[:, 5], real[:, 4], shared(made, true))
            self.truth += with_masks(truth, encoded(true))
            self.found += with_masks(seen, encoded(made))
            self.images += 1

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
        return super().compute() | (self._of_masks(0) if self.images else {})

    def tables(self) -> dict[str, Tensor]:
        """The tables of boxes, and those of masks under their names with `mask` before them."""
        return super().tables() | (self._of_masks(1) if self.images else {})

    def _of_masks(self, part: int) -> dict[str, Any]:
        """The numbers (0) or tables (1) of masks."""
        found: Any = self._report("segm", self.ranking_of_masks)[part]
        return {f"mask {key}": value for key, value in found.items()}


def shared(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (n, g) of masks (n, H, W) and (g, H, W), 0 where both are empty."""
    left, right = a.flatten(1).double(), b.flatten(1).double()
    both = left @ right.T
    return both / (left.sum(1)[:, None] + right.sum(1)[None] - both).clamp_min(1)


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
