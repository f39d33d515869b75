"""What a network answers to one input, under the names that YOLO users know.

Notable: a prediction of a detector is as long as its boxes, and gives a prediction of one box each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from unvanish.core.names import as_file_name, show
from unvanish.train.errors import TrainError
from unvanish.train.predict import formats
from unvanish.train.predict.boxes import Boxes
from unvanish.train.predict.drawing import Style, draw, draw_words, name_class, save_picture
from unvanish.train.predict.masks import Masks
from unvanish.train.predict.movable import Movable
from unvanish.train.predict.probs import Probs
from unvanish.train.predict.screen import open_on_screen


@dataclass(frozen=True, repr=False)
class Prediction(Movable):
    """One answer: where its input came from, the output, and what that means for the task.

    `probs` for classes; for detectors `boxes`, and `masks` if they make any; `image` (uint8, (3, H, W)) if
    the input is one; `text` for language and translation; `names` by number; `speed` in milliseconds.
    """

    origin: str
    task: str
    output: Any
    names: Mapping[int, str] | Sequence[str] = field(default_factory=dict)
    probs: Probs | None = None
    text: str = ""
    speed: Mapping[str, float] = field(default_factory=dict)
    boxes: Boxes | None = None
    masks: Masks | None = None
    image: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.names, Mapping):
            object.__setattr__(self, "names", dict(enumerate(self.names)))

    @property
    def path(self) -> str:
        """Where the input came from."""
        return self.origin

    @property
    def orig_img(self) -> Any:
        """The image as an array (H, W, 3) in OpenCV's order, blue, green, red; None without one."""
        return None if self.image is None else formats.turn_colours(self.image)

    @property
    def keypoints(self) -> None:
        """None: there are no poses."""
        return None

    @property
    def obb(self) -> None:
        """None: there are no oriented boxes."""
        return None

    @property
    def milliseconds(self) -> float:
        """How long the answer took, all stages together."""
        return sum(self.speed.values()) if self.speed else float("nan")

    @property
    def top1(self) -> int:
        """The most probable class."""
        return self._require_classes().top1

    @property
    def top1conf(self) -> float:
        """Its probability."""
        return float(self._require_classes().top1conf)

    @property
    def top5(self) -> list[int]:
        """The five most probable classes, best first."""
        return self._require_classes().top5

    @property
    def name(self) -> str:
        """The most probable class's name."""
        return name_class(self.top1, self.names)

    @property
    def orig_shape(self) -> tuple[int, int] | None:
        """Height and width of the image."""
        return None if self.image is None else (self.image.shape[1], self.image.shape[2])

    def plot(
        self, conf: bool = True, line_width: float | None = None, font_size: float | None = None,
        pil: bool = False, labels: bool = True, boxes: bool = True, masks: bool = True,
    ) -> Any:  # fmt: skip
        """The image with what was found drawn on it: an array in OpenCV's order, or a PIL image if `pil`."""
        look = Style(conf, labels, boxes, masks, line_width, font_size)
        if self.image is None:
            raise TrainError(f"a prediction of the task {self.task} has no picture to draw on")
        if self.boxes is not None:
            found: Boxes = self.boxes.cpu()
            held = None if self.masks is None else self.masks.cpu()
            made = draw(self.image, found, self.names, held, look)
        else:
            made = draw_words(self.image, self._list_classes(), look)
        return made if pil else formats.turn_colours(made)

    def save(self, path: str | Path | None = None, filename: str | Path | None = None, **look: Any) -> Path:
        """Write the image that `plot` draws, by default as results_NAME here; the suffix names the format."""
        place = path or filename or f"results_{as_file_name(Path(self.origin).stem)}.jpg"
        return save_picture(self.plot(**look, pil=True), Path(place))

    def show(self, **look: Any) -> None:
        """Show the image that `plot` draws, in the notebook or a window; TrainError without a screen."""
        open_on_screen(self.plot(**look, pil=True))

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

    def __getitem__(self, index: Any) -> Prediction:
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

    def _require_classes(self) -> Probs:
        if self.probs is None:
            raise TrainError(f"a prediction of the task {self.task} has no classes; read .text or .output")
        return self.probs

    def verbose(self) -> str:
        """What was found, in words."""
        if self.probs is not None:
            return ", ".join(self._list_classes())
        if self.boxes is not None:
            return self._count_boxes(self.boxes)
        return self.text or str(self.output.flatten()[:8].tolist())

    def _list_classes(self) -> list[str]:
        """The most probable classes with their probabilities; empty if there are none."""
        probs = self.probs
        if probs is None:
            return []
        return [f"{name_class(i, self.names)} {float(probs[i]):.2f}" for i in probs.top5]

    def __str__(self) -> str:
        return show(f"{self.origin}: {self.verbose()} ({self.milliseconds:.1f} ms)")

    __repr__ = __str__
