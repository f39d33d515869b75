"""A prediction written down: rows of a table, CSV, JSON, label lines, and cut-out pictures."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unvanish.train.errors import TrainError
from unvanish.train.predict.drawing import name_of

if TYPE_CHECKING:
    from unvanish.train.predict.prediction import Prediction

COLUMNS = ("name", "class", "confidence")
CORNERS = ("x1", "y1", "x2", "y2")


def columns(prediction: Prediction) -> list[str]:
    """The names of a table's columns."""
    return [*COLUMNS, *(CORNERS if prediction.boxes is not None else ())]


def rows(prediction: Prediction) -> list[dict[str, Any]]:
    """A row a box, or a row each of the most probable classes."""
    return [{**entry, **entry.get("box", {})} for entry in prediction.summary()]


def frame(prediction: Prediction) -> Any:
    """The table as a pandas DataFrame; TrainError where pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise TrainError(
            "to_df needs pandas, which is not installed: pip install pandas; to_csv() does without"
        ) from error
    names = columns(prediction)
    values = [[row[name] for name in names] for row in rows(prediction)]
    return pandas.DataFrame(values, columns=names)


def csv_text(prediction: Prediction) -> str:
    """The table as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns(prediction), extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows(prediction))
    return text.getvalue()


def json_text(prediction: Prediction) -> str:
    """The summary as JSON."""
    return json.dumps(prediction.summary(), indent=1, allow_nan=False)


def label_file(prediction: Prediction, path: Path, confidence: bool) -> Path:
    """Write the lines of a prediction's objects; whatever the file held before is gone."""
    lines = list(label_lines(prediction, confidence))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def label_lines(prediction: Prediction, confidence: bool) -> Iterator[str]:
    """A line an object; one whose mask is empty has no outline and no line."""
    boxes = prediction.boxes
    if boxes is None:
        raise TrainError(f"a prediction of the task {prediction.task} has no objects to write labels of")
    masks = prediction.masks
    shapes = boxes.xywhn.tolist() if masks is None else [xy.ravel().tolist() for xy in masks.xyn]
    for label, score, shape in zip(boxes.cls.tolist(), boxes.conf.tolist(), shapes, strict=True):
        if shape:
            values = [*shape, *([score] if confidence else [])]
            yield " ".join([str(int(label)), *(f"{value:.6f}" for value in values)])


def crops(prediction: Prediction, folder: Path) -> list[Path]:
    """Write the part of the image in each box, below a folder by class."""
    from PIL.Image import fromarray

    boxes, image = prediction.boxes, prediction.image
    if boxes is None or image is None:
        raise TrainError(f"a prediction of the task {prediction.task} has no boxes to cut out")
    high, wide = image.shape[1:]
    made = []
    for x1, y1, x2, y2, _, label in boxes.data.tolist():
        left, top = min(math.floor(x1), wide - 1), min(math.floor(y1), high - 1)
        part = image[:, top : max(top + 1, math.ceil(y2)), left : max(left + 1, math.ceil(x2))]
        place = folder / safe(name_of(int(label), prediction.names))
        place.mkdir(parents=True, exist_ok=True)
        path = free(place, safe(Path(prediction.origin).stem))
        fromarray(part.permute(1, 2, 0).contiguous().numpy()).save(path, quality=95)
        made.append(path)
    return made


def safe(name: str) -> str:
    """A name without what file systems or paths read something into."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "_"


def free(folder: Path, stem: str) -> Path:
    """The next free name of a JPEG file in a folder: stem.jpg, stem2.jpg, ..."""
    number = 1
    while (path := folder / f"{stem}{number if number > 1 else ''}.jpg").exists():
        number += 1
    return path
