"""One prediction for people and for programs: classes, boxes, texts; drawn, saved, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from unvanish.core.names import show
from unvanish.train.errors import TrainError
from unvanish.train.predict import formats
from unvanish.train.predict.boxes import Boxes
from unvanish.train.predict.drawing import draw, name_class, save_picture
from unvanish.train.predict.masks import Masks


@dataclass(frozen=True, repr=False)
class Prediction:
    """One answer: where its input came from, the output, and what that means for the task.

    `probs` (classes,) for classes; for detectors `boxes`, and `masks` if they make any, on the `image`
    (uint8, (3, H, W)); `text` for language and translation; `speed` in milliseconds.
    """

    origin: str
    task: str
    output: Tensor
    names: Sequence[str] = ()
    probs: Tensor | None = None
    text: str = ""
    speed: float = float("nan")
    boxes: Boxes | None = None
    masks: Masks | None = None
    image: Tensor | None = None

    @property
    def top1(self) -> int:
        """The most probable class."""
        return int(self._require_classes().argmax())

    @property
    def top1conf(self) -> float:
        """Its probability."""
        return float(self._require_classes().max())

    @property
    def top5(self) -> list[int]:
        """The five most probable classes, best first."""
        probs = self._require_classes()
        return [int(i) for i in probs.topk(min(5, len(probs))).indices]

    @property
    def name(self) -> str:
        """The most probable class's name."""
        return name_class(self.top1, self.names)

    @property
    def orig_shape(self) -> tuple[int, int] | None:
        """Height and width of the image."""
        return None if self.image is None else (self.image.shape[1], self.image.shape[2])

    def plot(self) -> Any:
        """The image with its boxes drawn, a PIL image."""
        if self.boxes is None or self.image is None:
            raise TrainError(f"a prediction of the task {self.task} has no boxes to draw")
        return draw(self.image, self.boxes, self.names, self.masks)

    def save(self, path: str | Path) -> Path:
        """Write the image that `plot` draws; the suffix names the format."""
        return save_picture(self.plot(), Path(path))

    def summary(self) -> list[dict[str, Any]]:
        """As plain values, an entry a box (with its outline, `segments`) or a probable class."""
        if self.boxes is None:
            return [self._entry(i, float(self._require_classes()[i])) for i in self.top5]
        entries = [
            self._entry(int(row[5]), row[4]) | {"box": dict(zip(formats.CORNERS, row[:4], strict=True))}
            for row in self.boxes.data.tolist()
        ]
        for entry, xy in zip(entries, self.masks.xy if self.masks is not None else (), strict=False):
            entry["segments"] = {"x": xy[:, 0].tolist(), "y": xy[:, 1].tolist()}
        return entries

    def to_df(self) -> Any:
        """A pandas DataFrame of name, class, confidence, and of boxes x1, y1, x2, y2 in pixels."""
        return formats.build_frame(self._rows(), self._columns())

    def to_csv(self) -> str:
        """The same rows as CSV, with a header."""
        return formats.format_csv(self._rows(), self._columns())

    def to_json(self) -> str:
        """The entries of `summary` as JSON."""
        return formats.format_json(self.summary())

    def save_txt(self, path: str | Path, save_conf: bool = False) -> Path:
        """Write a label file, a line an object: `class xc yc w h`, or the outline if there are masks.

        In shares of the image, as data sets are labelled; `save_conf` appends the confidence.
        """
        if self.boxes is None:
            raise TrainError(f"a prediction of the task {self.task} has no objects to write labels of")
        return formats.write_labels(self.boxes, self.masks, Path(path), save_conf)

    def save_crop(self, folder: str | Path) -> list[Path]:
        """Write the part of the image in each box to `folder/<class>/<image>.jpg` or the next free name."""
        if self.boxes is None or self.image is None:
            raise TrainError(f"a prediction of the task {self.task} has no boxes to cut out")
        return formats.write_crops(self.image, self.boxes, self.names, Path(self.origin).stem, Path(folder))

    def __len__(self) -> int:
        return len(self.boxes) if self.boxes is not None else int(self.probs is not None)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int | slice | Tensor) -> Prediction:
        boxes, masks = self.boxes, self.masks
        if boxes is None:
            raise TrainError(f"a prediction of the task {self.task} has no boxes to choose from")
        return replace(self, boxes=boxes[index], masks=None if masks is None else masks[index])

    def __iter__(self) -> Iterator[Prediction]:
        """A prediction of one box each, the most confident first."""
        return (self[i] for i in range(len(self)))

    def _entry(self, label: int, score: float) -> dict[str, Any]:
        return {"name": name_class(label, self.names), "class": label, "confidence": score}

    def _rows(self) -> list[dict[str, Any]]:
        """A row a box, or a row a probable class."""
        return [{**entry, **entry.get("box", {})} for entry in self.summary()]

    def _columns(self) -> list[str]:
        return [*formats.COLUMNS, *(formats.CORNERS if self.boxes is not None else ())]

    def _count_boxes(self, boxes: Boxes) -> str:
        """The boxes in words: how many of which class."""
        counts = Counter(name_class(int(c), self.names) for c in boxes.cls)
        return ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing found"

    def _require_classes(self) -> Tensor:
        if self.probs is None:
            raise TrainError(f"a prediction of the task {self.task} has no classes; read .text or .output")
        return self.probs

    def __str__(self) -> str:
        return show(self._describe())

    def _describe(self) -> str:
        if self.probs is not None:
            best = [f"{name_class(i, self.names)} {float(self.probs[i]):.2f}" for i in self.top5]
            return f"{self.origin}: {', '.join(best)} ({self.speed:.1f} ms)"
        if self.boxes is not None:
            return f"{self.origin}: {self._count_boxes(self.boxes)} ({self.speed:.1f} ms)"
        return f"{self.origin}: {self.text or self.output.flatten()[:8].tolist()} ({self.speed:.1f} ms)"

    __repr__ = __str__
