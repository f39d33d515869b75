"""How well a detector finds what is there: detections of every batch, judged together at the end.

Notable:
- Every detection surer than 0.001 counts, of every class, as precision over recall asks.
- Precision and recall are those at the confidence with the best mean F1, at an overlap of 0.5.
- Every process judges the whole of the data (`whole`), for a detection is worth what the others leave it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.lab.detection.boxes import iou
from unvanish.lab.detection.confusion import confused
from unvanish.lab.detection.precision import by_class, overall, precisions
from unvanish.lab.detection.ranking import GRID, Ranking
from unvanish.lab.detection.reading import decoded, raw
from unvanish.lab.detection.suppression import detections
from unvanish.lab.detection.truth import padded

CONFIDENCE, OVERLAP = 0.001, 0.7
Report = tuple[dict[str, float], dict[str, Tensor]]


class DetectionMetrics:
    """mAP50-95 and mAP50 of boxes, precision and recall; tables by class, curves, the confusion."""

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
        self.ranking = Ranking(self.classes)
        self.confusion = torch.zeros(self.classes + 1, self.classes + 1, dtype=torch.long)
        self._reports: dict[str, Report] = {}

    @torch.no_grad()
    def update(self, output: Any, y: Any) -> None:
        """Count a batch: raw maps or a decoded output (B, 4 + classes, A), and rows (M, 6)."""
        said = output if isinstance(output, Tensor) else decoded(raw(output), self.size)
        found = detections(said.float(), self.classes, CONFIDENCE, OVERLAP, several=True)
        truth = padded(y.cpu(), len(said), (self.size, self.size))
        for image, kept in enumerate(found):
            real = truth.real[image]
            boxes = torch.cat((truth.boxes[image][real], truth.classes[image][real][:, None]), 1)
            both = self._counted(kept.cpu(), boxes)
            self.truth += both[0]
            self.found += both[1]
            self.images += 1

    def _counted(self, kept: Tensor, real: Tensor) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Count an image, detections (n, 6) and objects (g, 5); both as COCO's annotations."""
        self._reports = {}
        scores, labels = kept[:, 4], kept[:, 5]
        overlap = iou(kept[:, None, :4].double(), real[None, :, :4].double())
        self.ranking.add(scores, labels, real[:, 4], overlap)
        self.confusion += confused(scores, labels, real[:, 4], overlap, self.classes)
        seen = as_coco(self.images, kept[:, [0, 1, 2, 3, 5]], scores.tolist())
        return as_coco(self.images, real), seen

    def observe(self, net: nn.Module, x: Any, y: Any) -> None:
        """Nothing more to see."""

    def compute(self) -> dict[str, float]:
        """The numbers so far; none without images."""
        return dict(self._report("bbox", self.ranking)[0]) if self.images else {}

    def tables(self) -> dict[str, Tensor]:
        """`confusion` (classes + 1, classes + 1), rows the truth, the background last; by class; curves.

        By class: `ap50-95` and `ap50` (classes,), NaN where it does not occur, and its number of `objects`.
        Curves (classes, t): `precision`, `recall` and `f1` over confidences 0, 0.001 ... 1, and `pr`,
        precision over recalls 0, 0.01 ... 1, -1 where the class does not occur. `balance`: the confidence of
        the best mean F1, and mean precision, recall and F1 there.
        """
        if not self.images:
            return {}
        return {"confusion": self.confusion.clone(), **self._report("bbox", self.ranking)[1]}

    def _report(self, kind: str, ranking: Ranking) -> Report:
        """Numbers and tables of boxes, or of masks; made once."""
        if kind not in self._reports:
            table = precisions(self.truth, self.found, self.images, self.classes, kind)
            best, (ap, ap50) = ranking.balance(), by_class(table)
            numbers = dict(zip(("mAP50-95", "mAP50"), overall(table), strict=True))
            numbers |= {"precision": best.precision, "recall": best.recall}
            made = {"ap50-95": ap, "ap50": ap50, "objects": ranking.objects.numpy(), **ranking.at(GRID)}
            made |= {"pr": table[0].T, "balance": np.array(dataclasses.astuple(best))}
            self._reports[kind] = numbers, {key: torch.from_numpy(v.copy()) for key, v in made.items()}
        return self._reports[kind]


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
