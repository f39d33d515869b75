"""How many images of a part have labels that can be used: too few of them stop a training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unvanish.lab.data.labels import Labels
from unvanish.lab.data.problems import DataError, Problem

EDGE, SOME = 0.02, 10  # shares of the image; boxes that are judged
ENOUGH = 0.5  # share of the images that should have labels
FORMS = {
    "no label file": "the file `labels/NAME.txt` belongs to the image `images/NAME.jpg`; an image without"
    " objects has an empty one",
    "coordinate out of range": "coordinates are shares of the image, from 0 to 1: x and y of the centre,"
    " width, height",
    "class out of range": "`names` must list every class, and the first one is class 0",
    "unknown class": "`names` must list every class",
    "box without outline": "these are labels of a detector: train one (task: detect), or draw outlines",
    "wrong count": "a line is `class x y w h`, or `class x1 y1 x2 y2 ...` for an outline",
    "not numbers": "a line is `class x y w h`, in numbers; labels in XML or JSON must be converted",
    "broken label file": "a label file is text, one object a line",
    "no area": "a box is the centre, width and height, not two corners",
}
READ_ANYWAY = (
    "other encoding", "commas", "decimal commas", "names of classes", "a confidence", "pixel coordinates",
    "labels beside images", "duplicate label",
)  # fmt: skip


@dataclass
class Tally:
    """Images, those with a usable label, those that say they have none, and what is wrong with the others."""

    images: int = 0
    usable: int = 0
    empty: int = 0
    faults: Counter[str] = field(default_factory=Counter)  # images by their first fault
    examples: dict[str, Problem] = field(default_factory=dict)
    boxes: int = 0
    beyond: int = 0  # boxes that reach over the image's edge

    def add(self, labels: Labels, problems: Sequence[Problem]) -> None:
        """Count one image."""
        self.images += 1
        self.boxes += len(labels.boxes)
        half = labels.boxes[:, 2:] / 2
        reach = np.abs(labels.boxes[:, :2] - 0.5) + half
        self.beyond += int((reach > 0.5 + EDGE).any(1).sum())
        if len(labels.classes):
            self.usable += 1
            return
        if any(p.sort == "empty label file" for p in problems):
            self.empty += 1
            return
        first = next((p for p in problems if p.sort not in READ_ANYWAY), None)
        if first is not None:
            self.faults[first.sort] += 1
            self.examples.setdefault(first.sort, first)

    def require_labels(self, where: str, task: str) -> None:
        """DataError if under half of the images that should have labels have one that can be used."""
        due = self.images - self.empty
        if self.images and not due:
            raise DataError(
                f"{where}: all {self.images:,} label files are empty, so there is nothing to learn"
            )
        if self.boxes >= SOME and self.beyond > ENOUGH * self.boxes:
            raise DataError(
                f"{where}: {self.beyond:,} of {self.boxes:,} boxes reach beyond their image: x and y are"
                " those of the centre, then width and height; these look like two corners"
            )
        if not self.images or self.usable >= ENOUGH * due:
            return
        parts = [f"{n:,} x {sort} ({self.examples[sort]})" for sort, n in self.faults.most_common(3)]
        likely = FORMS.get(self.faults.most_common(1)[0][0], "") if self.faults else ""
        raise DataError(
            f"{where}: only {self.usable:,} of {due:,} images have a label that can be used by task {task}: "
            f"{'; '.join(parts)}{'. ' + likely if likely else ''}"
        )
