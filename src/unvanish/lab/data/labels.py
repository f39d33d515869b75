"""YOLO label files: one object per line, `class x y w h` or `class x1 y1 x2 y2 ...`, in shares of the image.

Notable:
- An invalid line is left out and reported with its number: too few numbers, a class out of range, coordinates
  outside the image, a box without area, a polygon of two points, a duplicate line.
- If a file has polygons, or the task needs them, five numbers are a class and two points, not a box.
- A missing or empty file means an image without objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unvanish.lab.data.letterbox import Floats
from unvanish.lab.data.part import Indices
from unvanish.lab.data.problems import Problem
from unvanish.store.files import read_text

LARGEST = 16_000_000  # bytes of a label file
MOST = 5000  # objects of an image
DIGITS = 60  # letters of a number
SLACK = 0.01  # how far a coordinate may lie outside the image, in shares of it


@dataclass(frozen=True)
class Labels:
    """The labels of an image: classes (N,), boxes (N, 4) as x, y, w, h, polygons ((points, 2) each)."""

    classes: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    polygons: tuple[Floats, ...] = ()

    def lines(self) -> list[str]:
        """The lines of a label file: polygons if there are any, else boxes."""
        shapes = [p.ravel() for p in self.polygons] or list(self.boxes)
        rows = zip(self.classes, shapes, strict=True)
        return [" ".join([str(c), *(f"{v:.6f}" for v in values)]) for c, values in rows]


def label_file(image: Path) -> Path:
    """The label file of an image: `labels` in place of the last `images` of its path, and the suffix .txt."""
    parts = list(image.parts)
    at = max((i for i, part in enumerate(parts[:-1]) if part == "images"), default=None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_labels(file: Path, classes: int, polygons: bool = False) -> tuple[Labels, list[Problem]]:
    """The labels in a file and its faults; no labels if the file is missing or empty."""
    try:
        if not file.exists():
            why = "missing: the image counts as background"
            return Labels(), [Problem(str(file), 0, "no label file", why)]
        text = read_text(file, LARGEST)
    except (OSError, ValueError) as error:
        return Labels(), [Problem(str(file), 0, "broken label file", f"cannot be read ({error})")]
    if not text.strip():
        return Labels(), [Problem(str(file), 0, "empty label file", "empty: the image counts as background")]
    return parse_labels(text, str(file), classes, polygons)


def parse_labels(text: str, file: str, classes: int, polygons: bool = False) -> tuple[Labels, list[Problem]]:
    """The labels in a text, and the faults of its lines."""
    rows = [(i, line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    shaped = polygons or any(len(words) > 6 for _, words in rows)
    good: dict[tuple[float, ...], int] = {}
    problems = []
    for number, words in rows:
        if len(good) >= MOST:
            problems.append(Problem(file, number, "too many labels", f"at most {MOST:,} are read"))
            break
        found = find_fault(words, classes, shaped)
        if found is None:
            values = tuple(map(float, words))
            if values not in good:
                good[values] = number
                continue
            found = ("duplicate label", f"the same as line {good[values]}")
        problems.append(Problem(file, number, *found))
    return collect_labels(list(good), shaped), problems


def find_fault(words: Sequence[str], classes: int, shaped: bool) -> tuple[str, str] | None:
    """The fault of a line's words, its sort and the reason; None if there is none."""
    if max(map(len, words)) > DIGITS:
        return "not numbers", f"{max(words, key=len)[:60]!r}... is too long for a number"
    try:
        values = [float(word) for word in words]
    except ValueError:
        return "not numbers", f"{' '.join(words)[:60]!r} is not all numbers"
    if not all(map(math.isfinite, values)):
        return "not numbers", "a value is not finite"
    if values[0] != int(values[0]) or not 0 <= values[0] < classes:
        return "class out of range", f"class {words[0]}, but the classes are 0 to {classes - 1}"
    coordinates = values[1:]
    wrong = polygon_fault(coordinates) if shaped else box_fault(coordinates)
    if wrong is None and not all(-SLACK <= v <= 1 + SLACK for v in coordinates):
        worst = max(coordinates, key=lambda v: abs(v - 0.5))
        return "coordinate out of range", f"{worst:g} is outside 0 to 1: coordinates are shares of the image"
    return wrong


def box_fault(coordinates: Sequence[float]) -> tuple[str, str] | None:
    """The fault of x, y, w, h; None if there is none."""
    if len(coordinates) != 4:
        return "wrong count", f"{len(coordinates) + 1} numbers instead of 5 (class x y w h)"
    if min(coordinates[2:]) <= 0:
        return "no area", f"width {coordinates[2]:g} and height {coordinates[3]:g} must be above 0"
    return None


def polygon_fault(coordinates: Sequence[float]) -> tuple[str, str] | None:
    """The fault of x1, y1, x2, y2, ...; None if there is none."""
    if len(coordinates) % 2:
        return "wrong count", f"{len(coordinates)} coordinates: a polygon has pairs (x1 y1 x2 y2 ...)"
    if len(coordinates) < 6:
        return "too few points", f"a polygon of {len(coordinates) // 2} points; at least 3 are needed"
    xy = np.reshape(coordinates, (-1, 2))
    if (np.ptp(xy, 0) <= 0).any():
        return "no area", "all points of the polygon lie on a line"
    return None


def collect_labels(rows: Sequence[tuple[float, ...]], shaped: bool) -> Labels:
    """Labels of good rows; the box of a polygon is its extent."""
    if not rows:
        return Labels()
    classes = np.array([row[0] for row in rows], np.int64)
    if not shaped:
        return Labels(classes, np.array([row[1:] for row in rows], np.float32))
    polygons = tuple(np.array(r[1:], np.float32).reshape(-1, 2).clip(0, 1) for r in rows)
    return Labels(classes, np.stack([extent(p) for p in polygons]), polygons)


def extent(polygon: Floats) -> Floats:
    """The box (x, y, w, h) around points (N, 2)."""
    low, high = polygon.min(0), polygon.max(0)
    return np.concatenate([(low + high) / 2, high - low]).astype(np.float32)
