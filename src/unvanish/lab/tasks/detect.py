"""Detection of objects in images: x (B, 3, H, W) to boxes with a class and a score each.

The loss is the sum of a box loss, a loss of the distributions of the sides, and the cross entropy of the
scores, for the cells that a task-aligned assignment gives to an object. mAP50-95 (Lin et al. 2014) decides:
the mean over classes of the average precision, at overlaps from 0.50 to 0.95.

Gradients are those of the loss summed over the batch, accumulated to a nominal batch of 64, as usual for
detectors: their norm is in the hundreds, and nearly every step is clipped. That is normal here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.lab.detection.loss import DetectionLoss
from unvanish.lab.detection.metrics import DetectionMetrics

FITNESS, HIGHER = "mAP50-95", True
SUMMED = True
DEFAULTS: Mapping[str, Any] = {
    "batch": 16,
    "nbs": 64,
    "warmup_epochs": 3.0,
    "warmup_momentum": 0.8,
    "ramp": True,
}
EXPECTED = ("OPT005",)  # every step is clipped, see above
EXPECT = "expect mAP near 0: a detector from scratch needs hundreds of them"
GAINS = ("box", "cls", "dfl")  # of the parts of the loss
STRIDE = 32  # pixels that divide the side of an image


def loss(smoothing: float = 0.0, **gains: float) -> nn.Module:
    """The detector's loss; its targets are already soft, so `smoothing` changes nothing.

    `gains`: of box, cls and dfl, in place of 7.5, 0.5 and 1.5.
    """
    return DetectionLoss(**gains)


def metrics(facts: Mapping[str, Any], decode: Callable[[list[int]], str] | None = None) -> DetectionMetrics:
    """mAP50-95, mAP50, precision and recall of boxes."""
    return DetectionMetrics(int(facts["classes"]), int(facts["size"]))


def rate(classes: int) -> float:
    """AdamW's learning rate for `classes` classes."""
    return round(0.002 * 5 / (4 + classes), 6)


def invent_targets(batch: int, facts: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    """Random objects, two per image, as rows (M, 6) of a batch."""
    count = 2 * batch
    image = torch.arange(batch).repeat_interleave(2)[:, None]
    label = torch.randint(int(facts["classes"]), (count, 1), generator=generator)
    size = 0.2 + 0.3 * torch.rand(count, 2, generator=generator)
    centre = size / 2 + (1 - size) * torch.rand(count, 2, generator=generator)
    return torch.cat((image, label, centre, size), 1)
