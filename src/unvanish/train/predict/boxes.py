"""Boxes found on an image, under the names that users of detectors know: `boxes.xyxy`, `.conf`, `.cls`.

Notable: coordinates are pixels of the original image, or shares of it if a name ends in n.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unvanish.lab.data.letterbox import Letterbox
from unvanish.lab.detection.boxes import centre_size
from unvanish.train.predict.movable import Movable, match_kind


@dataclass(frozen=True)
class Boxes(Movable):
    """Boxes of an image, the most confident first: rows (n, 6) of corners, confidence, class; `orig_shape` is
    (height, width).

    Rows are a tensor, or an array after `.numpy()`; so is what is read from them.
    """

    data: Any
    orig_shape: tuple[int, int]

    @property
    def xyxy(self) -> Any:
        """Corners (n, 4) in pixels."""
        return self.data[:, :4]

    @property
    def xywh(self) -> Any:
        """Centre, width and height (n, 4) in pixels."""
        return match_kind(centre_size(torch.as_tensor(self.xyxy)), self.data)

    @property
    def xyxyn(self) -> Any:
        """Corners (n, 4) in shares of the image."""
        return self.xyxy / self._sides()

    @property
    def xywhn(self) -> Any:
        """Centre, width and height (n, 4) in shares of the image."""
        return self.xywh / self._sides()

    @property
    def conf(self) -> Any:
        """Confidences (n,)."""
        return self.data[:, 4]

    @property
    def cls(self) -> Any:
        """Classes (n,), as floats."""
        return self.data[:, 5]

    @property
    def id(self) -> None:
        """None: objects are not tracked from picture to picture."""
        return None

    @property
    def is_track(self) -> bool:
        """Whether the objects have numbers that stay from picture to picture: never."""
        return False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the rows."""
        return tuple(self.data.shape)

    def _sides(self) -> Any:
        high, wide = self.orig_shape
        return match_kind(torch.as_tensor(self.data).new_tensor([wide, high, wide, high]), self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Boxes:
        rows = self.data[index]
        return Boxes(rows[None] if rows.ndim == 1 else rows, self.orig_shape)

    def __iter__(self) -> Iterator[Boxes]:
        return (self[i] for i in range(len(self)))


def place_boxes(rows: Tensor, shape: tuple[int, int], size: int) -> Boxes:
    """Boxes from rows (n, 6) in pixels of a letterbox of side `size` around an image of `shape` (height,
    width).
    """
    box = Letterbox(shape, size)
    high, wide = shape
    (top, left), (rows_in, columns_in) = box.corner, box.inner
    shift = rows.new_tensor([left, top, left, top])
    scale = rows.new_tensor([wide / columns_in, high / rows_in] * 2)
    corners = (rows[:, :4] - shift) * scale
    corners = torch.minimum(corners.clamp_min(0), rows.new_tensor([wide, high, wide, high]))
    return Boxes(torch.cat((corners, rows[:, 4:6]), 1), shape)
