"""Precision, recall and F1 of detections over all thresholds of confidence.

Notable:
- The best threshold is exact. Each additional detection changes the F1 of its class alone, so the mean over
  classes at every possible threshold is a running sum.
- Means are over the classes that occur. If no detection has a class, its precision is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unvanish.lab.detection.matching import match_by_confidence

Floats = npt.NDArray[np.float64]
HIT = 0.5  # the least overlap at which a detection has found its object
GRID = np.linspace(0, 1, 1001)  # confidences of curves


@dataclass(frozen=True)
class Balance:
    """The confidence of the best mean F1, NaN if nothing is found; mean precision, recall, F1 there."""

    confidence: float
    precision: float
    recall: float
    f1: float


class Ranking:
    """The detections of many images: confidence, class, and whether they found an object of it."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.objects = torch.zeros(classes, dtype=torch.long)
        self.rows: list[Tensor] = []  # (n, 3) each: confidence, class, hit

    def add(self, scores: Tensor, labels: Tensor, real: Tensor, overlap: Tensor) -> None:
        """Count an image: detections by confidence, its objects' classes (g,), and overlaps (n, g)."""
        own = overlap * (labels[:, None] == real[None])
        hit = match_by_confidence(own, HIT) >= 0
        self.rows.append(torch.stack((scores.double(), labels.double(), hit.double()), 1))
        self.objects += torch.bincount(real.long(), minlength=self.classes)

    def sort(self) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
        """Confidences, classes and hits (0 or 1), the most confident first."""
        rows = torch.cat(self.rows).numpy() if self.rows else np.zeros((0, 3))
        rows = rows[np.argsort(-rows[:, 0], kind="stable")]
        return rows[:, 0], rows[:, 1].astype(np.int64), rows[:, 2]

    def balance(self) -> Balance:
        """Precision and recall at the best mean F1 over the classes that occur."""
        objects = self.objects.numpy()
        scores, labels, hits = self.sort()
        known = objects[labels] > 0
        scores, labels, hits = scores[known], labels[known], hits[known]
        if not len(scores):
            return Balance(float("nan"), 0.0, 0.0, 0.0)
        mean = np.cumsum(_gains(labels, hits, objects)) / np.count_nonzero(objects)
        last = np.append(scores[1:] != scores[:-1], True)  # ties count together
        confidence = float(scores[np.where(last, mean, -1).argmax()])
        values = self.at(np.array([confidence]))
        means = {name: float(value[objects > 0, 0].mean()) for name, value in values.items()}
        return Balance(confidence, **means)

    def at(self, confidences: Floats) -> Mapping[str, Floats]:
        """Precision, recall and f1, each (classes, t), at thresholds `confidences` (t,)."""
        scores, labels, hits = self.sort()
        found, right = np.zeros((2, self.classes, len(confidences)))
        for label in range(self.classes):
            own = labels == label
            found[label] = _above(scores[own], confidences)
            right[label] = _above(scores[own & (hits > 0)], confidences)
        real = self.objects.numpy()[:, None]
        return {
            "precision": right / np.maximum(found, 1),
            "recall": right / np.maximum(real, 1),
            "f1": 2 * right / np.maximum(found + real, 1),
        }


def _gains(labels: npt.NDArray[np.int64], hits: Floats, objects: npt.NDArray[np.int64]) -> Floats:
    """The change of its class's F1 by each detection, in order of confidence."""
    order = np.argsort(labels, kind="stable")  # class by class, the surest first
    label, hit = labels[order], hits[order]
    starts = np.searchsorted(label, label)  # where the class of each begins
    before = np.cumsum(hit) - hit
    right = np.cumsum(hit) - before[starts]
    found = np.arange(1, len(label) + 1) - starts
    f1 = 2 * right / (found + objects[label])
    previous = np.append(0.0, f1[:-1])
    previous[starts == np.arange(len(label))] = 0
    gains = np.empty_like(f1)
    gains[order] = f1 - previous
    return gains


def _above(scores: Floats, confidences: Floats) -> npt.NDArray[np.int64]:
    """How many of the scores are at least each confidence."""
    return len(scores) - np.searchsorted(np.sort(scores), confidences, side="left")
