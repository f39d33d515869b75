"""The metrics of a detector's boxes, or of its masks, under the names that users of detectors know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
KNOWN = ("precision", "recall", "mAP50", "mAP50-95")
CLASSES = {"accuracy": "accuracy_top1", "top5": "accuracy_top5"}


@dataclass(frozen=True)
class Scores:
    """Metrics of a kind: numbers by name, tables by class; `prefix` is that of its names."""

    metrics: Mapping[str, float]
    tables: Mapping[str, Any]
    prefix: str = ""

    @property
    def map(self) -> float:
        """Mean average precision over overlaps from 0.50 to 0.95."""
        return self._number("mAP50-95")

    @property
    def map50(self) -> float:
        """Mean average precision at an overlap of 0.50."""
        return self._number("mAP50")

    @property
    def map75(self) -> float:
        """Mean average precision at an overlap of 0.75."""
        found = self._column("ap75")
        there = ~np.isnan(found)
        return float(found[there].mean()) if there.any() else 0.0

    @property
    def mp(self) -> float:
        """Mean precision at the confidence of the best F1."""
        return self._number("precision")

    @property
    def mr(self) -> float:
        """Mean recall at the confidence of the best F1."""
        return self._number("recall")

    @property
    def maps(self) -> Values:
        """Average precision of each class; the mean for a class that does not occur."""
        found = self._column("ap50-95")
        return np.where(np.isnan(found), self.map, found)

    @property
    def ap_class_index(self) -> npt.NDArray[np.int64]:
        """The classes that occur."""
        return np.flatnonzero(~np.isnan(self._column("ap50-95")))

    @property
    def ap(self) -> Values:
        """Average precision of the classes that occur."""
        return self._column("ap50-95")[self.ap_class_index]

    @property
    def ap50(self) -> Values:
        """The same at an overlap of 0.50."""
        return self._column("ap50")[self.ap_class_index]

    def mean_results(self) -> list[float]:
        """Precision, recall, mAP50 and mAP50-95."""
        return [self.mp, self.mr, self.map50, self.map]

    def class_result(self, number: int) -> tuple[float, float]:
        """AP50 and AP50-95 of one of the classes that occur."""
        return float(self.ap50[number]), float(self.ap[number])

    def _number(self, name: str) -> float:
        return float(self.metrics.get(self.prefix + name, 0.0))

    def _column(self, name: str) -> Values:
        return np.asarray(self.tables.get(self.prefix + name, []), np.float64)


def name_as_known(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics under the names of results.csv that users know: metrics/mAP50(B), those of masks with (M)."""
    found = {}
    for name, value in metrics.items():
        bare = name.removeprefix("mask ")
        if bare in KNOWN:
            found[f"metrics/{bare}({'B' if bare == name else 'M'})"] = value
        else:
            found[f"metrics/{CLASSES.get(name, name)}"] = value
    return found
