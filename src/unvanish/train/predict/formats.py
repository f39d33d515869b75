"""Predictions as files: rows of a table, CSV, JSON, label files, and cut-out images."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unvanish.core.names import as_file_name, show_cell
from unvanish.store.files import write_text
from unvanish.train.errors import TrainError
from unvanish.train.predict.boxes import Boxes
from unvanish.train.predict.drawing import Names, name_class, save_picture
from unvanish.train.predict.masks import Masks

COLUMNS = ("name", "class", "confidence")
CORNERS = ("x1", "y1", "x2", "y2")


def turn_colours(picture: Any) -> Any:
    """A PIL image or a tensor (3, H, W) as an array (H, W, 3) of blue, green, red, OpenCV's order."""
    if isinstance(picture, Tensor):
        picture = picture.expand(3, -1, -1).permute(1, 2, 0).cpu()
    pixels = np.asarray(picture)
    return np.ascontiguousarray(pixels[..., ::-1])


def build_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """The rows as a pandas DataFrame; TrainError if pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise TrainError(
            "to_df needs pandas, which is not installed: pip install pandas; to_csv() works without it"
        ) from error
    values = [[row[name] for name in columns] for row in rows]
    return pandas.DataFrame(values, columns=list(columns))


def format_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """The rows as CSV, with a header."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows({key: show_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def format_json(entries: Sequence[Mapping[str, Any]]) -> str:
    """The entries as JSON."""
    return json.dumps(entries, indent=1, allow_nan=False)


def write_labels(boxes: Boxes, masks: Masks | None, path: Path, confidence: bool) -> Path:
    """Write a label file over what was there before, a line an object."""
    lines = list(format_labels(boxes, masks, confidence))
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, "".join(f"{line}\n" for line in lines), "label file")


def format_labels(boxes: Boxes, masks: Masks | None, confidence: bool) -> Iterator[str]:
    """A line an object; an object whose mask is empty has no outline and no line."""
    shapes = boxes.xywhn.tolist() if masks is None else [xy.ravel().tolist() for xy in masks.xyn]
    for label, score, shape in zip(boxes.cls.tolist(), boxes.conf.tolist(), shapes, strict=True):
        if shape:
            values = [*shape, *([score] if confidence else [])]
            yield " ".join([str(int(label)), *(f"{value:.6f}" for value in values)])


def write_crops(image: Tensor, boxes: Boxes, names: Names, stem: str, folder: Path) -> list[Path]:
    """Write the part of the image (3, H, W) in each box as `<class>/<stem>.jpg` below a folder."""
    from PIL.Image import fromarray

    high, wide = image.shape[1:]
    paths = []
    for x1, y1, x2, y2, _, label in boxes.data.tolist():
        left, top = min(math.floor(x1), wide - 1), min(math.floor(y1), high - 1)
        part = image[:, top : max(top + 1, math.ceil(y2)), left : max(left + 1, math.ceil(x2))]
        place = folder / as_file_name(name_class(int(label), names))
        place.mkdir(parents=True, exist_ok=True)
        path = find_free(place, as_file_name(stem))
        paths.append(save_picture(fromarray(part.permute(1, 2, 0).contiguous().numpy()), path, 95))
    return paths


def find_free(folder: Path, stem: str) -> Path:
    """The next free name of a JPEG file in a folder: stem.jpg, stem2.jpg, ..."""
    number = 1
    while (path := folder / f"{stem}{number if number > 1 else ''}.jpg").exists():
        number += 1
    return path
