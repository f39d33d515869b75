"""The loss of a segmenter: a detector's, and the cross entropy of the masks within their boxes.

Notable: a mask's cross entropy is summed within the true box and divided by the box's area, so that small
objects count as much as large ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unvanish.lab.detection.assign import Assigned
from unvanish.lab.detection.boxes import corners
from unvanish.lab.detection.loss import DetectionLoss, detection_parts
from unvanish.lab.detection.masks import inside_boxes, mix_masks
from unvanish.lab.detection.raw_maps import raw_maps, read_maps
from unvanish.lab.detection.truth import Truth, pad_truth


class SegmentationLoss(DetectionLoss):
    """The loss of raw maps and prototypes against rows (M, 6) and masks (M, S, S).

    `least` and the gains as for a detector's; `mask`: the gain of masks, by default that of boxes.
    """

    def __init__(self, least: float = 0.0, *, mask: float | None = None, **gains: float) -> None:
        super().__init__(least, **gains)
        self.gains["mask"] = self.gains["box"] if mask is None else mask

    def parts(self, output: Any, y: Any) -> dict[str, Tensor]:
        """Its parts, weighted: box, class, dfl, mask."""
        *maps, prototypes = raw_maps(output)
        rows, masks = y
        found = read_maps(maps, prototypes.shape[1])
        truth = pad_truth(rows, len(prototypes), (maps[0].shape[-1], maps[0].shape[-2]))
        given = self._assign(found, truth)
        mask = mask_part(found.extra, prototypes.float(), truth, given, rows, masks)
        return self._weigh({**detection_parts(found, truth, given), "mask": mask})


def mask_part(
    coefficients: Tensor, prototypes: Tensor, truth: Truth, given: Assigned, rows: Tensor, masks: Tensor
) -> Tensor:
    """Mean over assigned cells of their masks' cross entropy within the true box, divided by its area."""
    high, wide = prototypes.shape[-2:]
    total = prototypes.sum() * 0  # without objects, prototypes get a gradient of zero
    for image in range(len(prototypes)):
        cells = given.positive[image].nonzero()[:, 0]
        if not len(cells):
            continue
        own = truth.rows[image, given.objects[image, cells]]  # rows in y
        objects, which = torch.unique(own, return_inverse=True)
        target = resize_masks(masks[objects], high, wide)[which]
        logits = mix_masks(coefficients[image, cells], prototypes[image])
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        unit = rows.new_tensor([wide, high, wide, high])
        within = (entropy * inside_boxes(corners(rows[own, 2:6]) * unit, high, wide)).mean((1, 2))
        total = total + (within / rows[own, 4:6].prod(1).clamp_min(1e-9)).sum()
    return total / given.positive.sum().clamp_min(1)


def resize_masks(masks: Tensor, high: int, wide: int) -> Tensor:
    """Resize masks (n, S, S) to floats (n, high, wide)."""
    values = masks.float()
    if tuple(values.shape[1:]) == (high, wide):
        return values
    return F.interpolate(values[:, None], (high, wide))[:, 0]
