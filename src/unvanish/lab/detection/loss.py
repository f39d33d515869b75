"""The loss of a detector: the fit of its boxes, the distributions of their sides, and its scores.

Notable:
- Lengths are in cells of the finest level, so the loss needs neither strides nor pixels.
- Box and side losses are weighted by the target score of their cell; all are divided by the sum of target
  scores, at least 1. An image without an object trains only the scores.
- It is the loss per sample. Detectors are trained with its sum over the batch.

References: Zheng et al. 2020 (complete IoU); Li et al. 2020 (distribution focal loss, arXiv 2006.04388).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unvanish.lab.detection.assign import Assigned, assign
from unvanish.lab.detection.boxes import ciou
from unvanish.lab.detection.raw_maps import CellPredictions, raw_maps, read_maps
from unvanish.lab.detection.truth import Truth, pad_truth
from unvanish.lab.models.blocks.detect import BINS

LAST = BINS - 1 - 0.01  # the farthest side a cell can predict, in cells of its level


class DetectionLoss(nn.Module):
    """The loss of a head's raw maps (not decoded) against the rows (M, 6) of a batch.

    `least`: as for `assign`; `box`, `cls` and `dfl`: the weights of its parts.
    """

    def __init__(self, least: float = 0.0, *, box: float = 7.5, cls: float = 0.5, dfl: float = 1.5) -> None:
        super().__init__()
        self.least = least
        self.gains = {"box": box, "class": cls, "dfl": dfl}
        self.last: dict[str, Tensor] = {}  # the parts of the last call, without their graph

    def forward(self, output: Any, y: Any) -> Tensor:
        """The loss, a scalar."""
        parts = self.parts(output, y)
        self.last = {name: part.detach() for name, part in parts.items()}
        return torch.stack(list(parts.values())).sum()

    def parts(self, output: Any, y: Any) -> dict[str, Tensor]:
        """Its parts, weighted: box, class, dfl."""
        maps = raw_maps(output)
        found = read_maps(maps)
        truth = pad_truth(y, len(maps[0]), (maps[0].shape[-1], maps[0].shape[-2]))
        given = self._assign(found, truth)
        return self._weigh(detection_parts(found, truth, given))

    def _weigh(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.gains[name] * part for name, part in parts.items()}

    def _assign(self, found: CellPredictions, truth: Truth) -> Assigned:
        """Assign cells to objects."""
        scores, boxes = found.logits.detach().sigmoid(), found.boxes.detach()
        return assign(scores, boxes, found.centres, truth, least=self.least)


def detection_parts(found: CellPredictions, truth: Truth, given: Assigned) -> dict[str, Tensor]:
    """The parts of the loss for an assignment, unweighted: box, class, dfl."""
    total = given.scores.sum().clamp_min(1)
    score = F.binary_cross_entropy_with_logits(found.logits, given.scores, reduction="sum")
    image, cell = given.positive.nonzero(as_tuple=True)
    target = truth.boxes[image, given.objects[image, cell]]  # (P, 4)
    weight = given.weights[image, cell]
    box = ((1 - ciou(found.boxes[image, cell], target)) * weight).sum()
    sides = distances(target, found.centres[cell], found.sizes[cell])
    dfl = (distribution(found.bins[image, cell], sides) * weight).sum()
    return {"box": box / total, "class": score / total, "dfl": dfl / total}


def distances(boxes: Tensor, centres: Tensor, sizes: Tensor) -> Tensor:
    """Distances (P, 4) from centres (P, 2) to sides of boxes (P, 4), in cells of their level, clipped."""
    sides = torch.cat((centres - boxes[:, :2], boxes[:, 2:] - centres), 1) / sizes[:, None]
    return sides.clamp(0, LAST)


def distribution(bins: Tensor, sides: Tensor) -> Tensor:
    """Cross entropy of bins (P, 4, 16) with the two bins next to each distance (P, 4): mean (P,)."""
    low = sides.long()
    share = sides - low
    log = bins.log_softmax(-1)
    at_low, at_high = (log.gather(-1, i[..., None])[..., 0] for i in (low, low + 1))
    return -(at_low * (1 - share) + at_high * share).mean(-1)
