"""How well a detector finds what is there: detections of every batch, judged together at the end.

Notable:
- Every detection surer than 0.001 counts, of every class, as precision over recall asks.
- Every process judges the whole of the data (`whole`), for a detection is worth what the others leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.tasks.detection.precision import mean_average_precision
from unvanish.tasks.detection.reading import decoded, raw
from unvanish.tasks.detection.suppression import detections
from unvanish.tasks.detection.truth import padded

CONFIDENCE, OVERLAP = 0.001, 0.7


class DetectionMetrics:
    """mAP50-95 and mAP50 of boxes."""

    decodes = False
    whole = True

    def __init__(self, classes: int, size: int) -> None:
        self.classes, self.size = classes, size
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.images = 0
        self.truth: list[dict[str, Any]] = []
        self.found: list[dict[str, Any]] = []

    @torch.no_grad()
    def update(self, output: Any, y: Any) -> None:
        """Count a batch: raw maps or a decoded output (B, 4 + classes, A), and rows (M, 6)."""
        said = output if isinstance(output, Tensor) else decoded(raw(output), self.size)
        found = detections(said.float(), self.classes, CONFIDENCE, OVERLAP, several=True)
        truth = padded(y.cpu(), len(said), (self.size, self.size))
        for image, rows in enumerate(found):
            real = truth.real[image]
            boxes = torch.cat((truth.boxes[image][real], truth.classes[image][real][:, None]), 1)
            self.truth += as_coco(self.images + image, boxes)
            self.found += as_coco(self.images + image, rows[:, [0, 1, 2, 3, 5]].cpu(), rows[:, 4].tolist())
        self.images += len(found)

    def observe(self, net: nn.Module, x: Any, y: Any) -> None:
        """Nothing more to see."""

    def compute(self) -> dict[str, float]:
        """The numbers so far; none without images."""
        if not self.images:
            return {}
        both = mean_average_precision(self.truth, self.found, self.images, self.classes)
        return dict(zip(("mAP50-95", "mAP50"), both, strict=True))

    def tables(self) -> dict[str, Tensor]:
        """No tables."""
        return {}


def as_coco(image: int, boxes: Tensor, scores: Sequence[float] | None = None) -> list[dict[str, Any]]:
    """COCO's annotations of an image from rows (n, 5): corners and class."""
    made = []
    for number, (x1, y1, x2, y2, label) in enumerate(boxes.tolist()):
        wide, high = x2 - x1, y2 - y1
        one = {
            "image_id": image,
            "category_id": int(label),
            "bbox": [x1, y1, wide, high],
            "area": wide * high,
        }
        made.append(one | ({} if scores is None else {"score": scores[number]}))
    return made
