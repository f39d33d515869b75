"""Metrics of a detector: the detections of all batches, evaluated together at the end.

Notable:
- Every detection with a confidence above 0.001 counts, of every class, as precision-recall curves require.
- Precision and recall are those at the confidence with the best mean F1, at an overlap of 0.5.
- Every process evaluates all of the data (`whole`), since a detection's value depends on the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.lab.detection.boxes import iou
from unvanish.lab.detection.confusion import count_confusions
from unvanish.lab.detection.precision import average_by_class, overall, precision_table
from unvanish.lab.detection.ranking import GRID, Ranking
from unvanish.lab.detection.raw_maps import decode_maps, raw_maps
from unvanish.lab.detection.suppression import detections
from unvanish.lab.detection.truth import pad_truth

CONFIDENCE, OVERLAP = 0.001, 0.7
Report = tuple[dict[str, float], dict[str, Tensor]]


class DetectionMetrics:
    """mAP50-95 and mAP50 of boxes, precision and recall; tables by class, curves, the confusion matrix."""

    decodes = False
    whole = True

    def __init__(self, classes: int, size: int) -> None:
        self.classes, self.size = classes, size
        self.images = 0
        self.truth: list[dict[str, Any]] = []
        self.found: list[dict[str, Any]] = []
        self.ranking = Ranking(classes)
        self.confusion = torch.zeros(classes + 1, classes + 1, dtype=torch.long)
        self._reports: dict[str, Report] = {}

    def reset(self) -> None:
        """Forget all batches."""
        self.images, self.truth, self.found = 0, [], []
        self.ranking = Ranking(self.classes)
        self.confusion = torch.zeros_like(self.confusion)
        self._reports = {}

    @torch.no_grad()
    def update(self, output: Any, y: Any) -> None:
        """Count a batch: raw maps or a decoded output (B, 4 + classes, A), and rows (M, 6)."""
        decoded = output if isinstance(output, Tensor) else decode_maps(raw_maps(output), self.size)
        found = detections(decoded.float(), self.classes, CONFIDENCE, OVERLAP, several=True)
        truth = pad_truth(y.cpu(), len(decoded), (self.size, self.size))
        for image, kept in enumerate(found):
            real = truth.real[image]
            boxes = torch.cat((truth.boxes[image][real], truth.classes[image][real][:, None]), 1)
            both = self._count(kept.cpu(), boxes)
            self.truth += both[0]
            self.found += both[1]
            self.images += 1

    def _count(self, kept: Tensor, real: Tensor) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Count an image, detections (n, 6) and objects (g, 5); both as COCO's annotations."""
        self._reports = {}
        scores, labels = kept[:, 4], kept[:, 5]
        overlap = iou(kept[:, None, :4].double(), real[None, :, :4].double())
        self.ranking.add(scores, labels, real[:, 4], overlap)
        self.confusion += count_confusions(scores, labels, real[:, 4], overlap, self.classes)
        seen = as_coco(self.images, kept[:, [0, 1, 2, 3, 5]], scores.tolist())
        return as_coco(self.images, real), seen

    def observe(self, net: nn.Module, x: Any, y: Any) -> None:
        """Nothing to do: detections are counted by `update`."""

    def compute(self) -> dict[str, float]:
        """The numbers so far; none without images."""
        return dict(self._report("bbox", self.ranking)[0]) if self.images else {}

    def tables(self) -> dict[str, Tensor]:
        """`confusion` (classes + 1, classes + 1), rows are true, the background is last; by class; curves.

        By class: `ap50-95`, `ap50` and `ap75` (classes,), NaN if the class does not occur, and its number of
        `objects`. Curves (classes, t): `precision`, `recall` and `f1` over confidences 0, 0.001 ... 1, and
        `pr`, precision over recalls 0, 0.01 ... 1, -1 if the class does not occur. `balance`: the confidence
        of the best mean F1, and mean precision, recall and F1 there.
        """
        if not self.images:
            return {}
        return {"confusion": self.confusion.clone(), **self._report("bbox", self.ranking)[1]}

    def _report(self, kind: str, ranking: Ranking) -> Report:
        """Numbers and tables of boxes, or of masks; computed once."""
        if kind not in self._reports:
            table = precision_table(self.truth, self.found, self.images, self.classes, kind)
            best, (ap, ap50, ap75) = ranking.balance(), average_by_class(table)
            numbers = dict(zip(("mAP50-95", "mAP50"), overall(table), strict=True))
            numbers |= {"precision": best.precision, "recall": best.recall}
            made = {
                "ap50-95": ap,
                "ap50": ap50,
                "ap75": ap75,
                "objects": ranking.objects.numpy(),
                **ranking.at(GRID),
            }
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
