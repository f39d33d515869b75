"""YOLO label files: one object per line, `class x y w h` or `class x1 y1 x2 y2 ...`, in shares of the image.

Notable:
- An invalid line is left out and reported with its number: too few numbers, a class out of range, coordinates
  outside the image, a box without area, a polygon of two points, a duplicate line.
- What can only mean one thing is read, and said: commas, decimal commas, names of classes, a confidence at
  the end, pixels instead of shares, another encoding, boxes among polygons.
- A missing or empty file means an image without objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unvanish.lab.data.encoding import PLAIN, decode
from unvanish.lab.data.label_lines import MOST, LabelLine, read_rows
from unvanish.lab.data.letterbox import Floats
from unvanish.lab.data.part import Indices
from unvanish.lab.data.problems import Problem
from unvanish.store.files import read_bytes

LARGEST = 16_000_000  # bytes of a label file
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


@dataclass(frozen=True)
class Form:
    """What labels are for: names of classes, or how many; whether outlines are needed; the image (W, H)."""

    names: Sequence[str]
    polygons: bool = False
    size: tuple[int, int] | None = None


def label_file(image: Path) -> Path:
    """The label file of an image: `labels` in place of the last `images` of its path, and the suffix .txt."""
    parts = list(image.parts)
    at = max((i for i, part in enumerate(parts[:-1]) if part == "images"), default=None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_labels(file: Path, form: Form) -> tuple[Labels, list[Problem]]:
    """The labels in a file and its faults; no labels if the file is missing or empty."""
    try:
        if not file.exists():
            why = "missing: the image counts as background"
            return Labels(), [Problem(str(file), 0, "no label file", why)]
        text, encoding = decode(read_bytes(file, LARGEST))
    except (OSError, ValueError) as error:
        return Labels(), [Problem(str(file), 0, "broken label file", f"cannot be read ({error})")]
    if not text.strip():
        return Labels(), [Problem(str(file), 0, "empty label file", "empty: the image counts as background")]
    labels, problems = parse_labels(text, str(file), form)
    if encoding not in PLAIN:
        problems.append(Problem(str(file), 0, "other encoding", f"not UTF-8, read as {encoding}"))
    return labels, problems


def parse_labels(text: str, file: str, form: Form) -> tuple[Labels, list[Problem]]:
    """The labels in a text, and the faults of its lines."""
    rows, problems = read_rows(text, file, form.names)
    rows, said = _scale_pixels(rows, file, form.size)
    problems += said
    good: dict[tuple[float, ...], int] = {}
    for row in rows:
        if len(good) >= MOST:
            problems.append(Problem(file, row.line, "too many labels", f"at most {MOST:,} are read"))
            break
        found = find_fault(row.values, len(form.names), form.polygons)
        if found is None:
            if row.values not in good:
                good[row.values] = row.line
                continue
            found = ("duplicate label", f"the same as line {good[row.values]}")
        problems.append(Problem(file, row.line, *found))
    return collect_labels(list(good)), problems


def find_fault(values: Sequence[float], classes: int, outlines: bool) -> tuple[str, str] | None:
    """The fault of a class and its coordinates, its sort and the reason; None if there is none.

    `outlines`: boxes do not do.
    """
    if not all(map(math.isfinite, values)):
        return "not numbers", "a value is not finite"
    if values[0] != int(values[0]) or not 0 <= values[0] < classes:
        return "class out of range", f"class {values[0]:g}, but the classes are 0 to {classes - 1}"
    coordinates = values[1:]
    if outlines and len(coordinates) == 4:
        return (
            "box without outline",
            "a box, but masks are learned from outlines (class x1 y1 x2 y2 x3 y3 ...)",
        )
    wrong = box_fault(coordinates) if len(coordinates) < 6 else polygon_fault(coordinates)
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
    xy = np.reshape(coordinates, (-1, 2))
    if (np.ptp(xy, 0) <= 0).any():
        return "no area", "all points of the polygon lie on a line"
    return None


def collect_labels(rows: Sequence[tuple[float, ...]]) -> Labels:
    """Labels of good rows; the box of a polygon is its extent. Polygons are kept if all rows are some."""
    if not rows:
        return Labels()
    classes = np.array([row[0] for row in rows], np.int64)
    outlines = [np.array(r[1:], np.float32).reshape(-1, 2).clip(0, 1) if len(r) > 5 else None for r in rows]
    boxes = [
        np.array(row[1:], np.float32) if outline is None else extent(outline)
        for row, outline in zip(rows, outlines, strict=True)
    ]
    polygons = tuple(o for o in outlines if o is not None)
    return Labels(classes, np.stack(boxes), polygons if len(polygons) == len(rows) else ())


def extent(polygon: Floats) -> Floats:
    """The box (x, y, w, h) around points (N, 2)."""
    low, high = polygon.min(0), polygon.max(0)
    return np.concatenate([(low + high) / 2, high - low]).astype(np.float32)


def _scale_pixels(
    rows: list[LabelLine], file: str, size: tuple[int, int] | None
) -> tuple[list[LabelLine], list[Problem]]:
    """The rows in shares of the image, if all can only be pixels that fit into it, and that it was so."""
    if size is None or not rows or not all(_are_pixels(row.values[1:], size) for row in rows):
        return rows, []
    scaled = []
    for row in rows:
        shares = (v / size[i % 2] for i, v in enumerate(row.values[1:]))
        scaled.append(LabelLine(row.line, (row.values[0], *shares)))
    why = f"pixels instead of shares, divided by the image's {size[0]} x {size[1]}"
    return scaled, [Problem(file, rows[0].line, "pixel coordinates", why)]


def _are_pixels(values: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether coordinates are those of a box or a polygon in pixels, all of it on the image."""
    if len(values) < 4 or len(values) % 2 or max(values) <= 1 + SLACK:
        return False
    if len(values) == 4:
        centre, side = values[:2], values[2:]
        inside = all(s / 2 - 1 <= c <= n - s / 2 + 1 for c, s, n in zip(centre, side, size, strict=True))
        return min(values) > 1 and inside
    return all(-1 <= v <= size[i % 2] + 1 for i, v in enumerate(values))
