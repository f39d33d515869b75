"""Segmentation of objects in images: x (B, 3, H, W) to boxes with a class, a score and a mask each.

The loss is a detector's plus the cross entropy of the masks within their boxes. Targets are one row per
object, with masks at a quarter of the image's side. mAP50-95 of the masks decides (Lin et al. 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.lab.detection.boxes import corners
from unvanish.lab.detection.mask_loss import SegmentationLoss
from unvanish.lab.detection.mask_metrics import SegmentationMetrics
from unvanish.lab.detection.masks import COARSE, inside_boxes
from unvanish.lab.tasks import detect

FITNESS, HIGHER = "mask mAP50-95", True
SUMMED, DEFAULTS, STRIDE = detect.SUMMED, detect.DEFAULTS, detect.STRIDE
GAINS = (*detect.GAINS, "mask")
EXPECT, EXPECTED = detect.EXPECT, detect.EXPECTED
rate = detect.rate


def loss(smoothing: float = 0.0, **gains: float) -> nn.Module:
    """The segmenter's loss; its targets are already soft, so `smoothing` changes nothing.

    `gains`: of box, cls and dfl, in place of 7.5, 0.5 and 1.5, and of mask, in place of the gain of box.
    """
    return SegmentationLoss(**gains)


def metrics(
    facts: Mapping[str, Any], decode: Callable[[list[int]], str] | None = None
) -> SegmentationMetrics:
    """mAP50-95, mAP50, precision and recall of boxes and of masks."""
    return SegmentationMetrics(int(facts["classes"]), int(facts["size"]))


def invent_targets(batch: int, facts: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random objects, two per image, that fill their boxes."""
    rows, side = detect.invent_targets(batch, facts, generator), int(facts["size"]) // COARSE
    return rows, inside_boxes(corners(rows[:, 2:6]) * side, side, side).to(torch.uint8)
