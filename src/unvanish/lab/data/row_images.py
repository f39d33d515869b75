"""Pictures in the rows of a table, as bytes or as paths, decoded when a batch asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unvanish.core.caution import caution
from unvanish.lab.data.limits import open_picture
from unvanish.lab.data.part import Batch, Draw, Indices, Part, Tensors
from unvanish.lab.data.pictures import BROKEN, decode_square
from unvanish.lab.data.problems import DataError, Problems

NATIVE = 256  # pixels: the largest side that equal squares keep


class RowImages(Part):
    """The pictures of a column with a class each; x is uint8 (B, C, size, size), the central squares."""

    def __init__(self, rows: Any, column: str, labels: Indices, size: int, channels: int) -> None:
        self.rows, self.column, self.classes = rows, column, labels
        self.size, self.channels = size, channels

    @property
    def labels(self) -> Indices:
        return self.classes

    def __len__(self) -> int:
        return len(self.classes)

    def read(self, index: int) -> Tensor:
        """One picture; OSError if it is broken."""
        return decode_square(place_of(self.rows[int(index)][self.column]), self.size, self.channels)

    def try_to_read(self, index: int) -> Tensor | str:
        """One picture, or the reason why it cannot be read."""
        try:
            return self.read(index)
        except BROKEN as error:
            return str(error)

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        images = [self.try_to_read(i) for i in indices]
        good = [i for i, image in enumerate(images) if isinstance(image, Tensor)]
        if not good:
            raise DataError(f"no picture of a batch can be read; row {indices[0]}: {images[0]}")
        if len(good) < len(images):
            caution(
                f"unvanish: {len(images) - len(good)} pictures of a batch cannot be read; others stand in"
            )
        chosen = [i if isinstance(image, Tensor) else good[0] for i, image in enumerate(images)]
        x = torch.stack([image for i in chosen if isinstance(image := images[i], Tensor)])
        return x, torch.from_numpy(self.classes[indices[chosen]])

    def load(self, name: str, problems: Problems) -> Tensors:
        """Its readable pictures, in memory; the others are reported."""
        images = [self.try_to_read(i) for i in range(len(self))]
        good = [i for i, image in enumerate(images) if isinstance(image, Tensor)]
        for i, image in enumerate(images):
            if isinstance(image, str):
                problems.add(name, i + 1, "broken image", f"not a readable image ({image})")
        held = [image for image in images if isinstance(image, Tensor)]
        x = torch.stack(held) if held else torch.empty(0, self.channels, self.size, self.size)
        return Tensors(x, torch.from_numpy(self.classes[good]))

    def sample(self, most: int = 256) -> Tensor:
        """Pictures for statistics, spread over the part; DataError if none can be read."""
        some = [self.try_to_read(i) for i in range(0, len(self), len(self) // most + 1)]
        if not (held := [image for image in some if isinstance(image, Tensor)]):
            raise DataError(f"no picture of the column {self.column!r} can be read: {some[0]}")
        return torch.stack(held)


def place_of(cell: Any) -> Any:
    """The bytes or the file of a picture in a cell; OSError if there is none."""
    if isinstance(cell, Mapping) and cell.get("bytes"):
        return BytesIO(cell["bytes"])
    path = cell.get("path") if isinstance(cell, Mapping) else None
    if not path or not Path(path).is_file():
        raise OSError("there is no picture in this row")
    return Path(path)


def native_side(rows: Any, column: str) -> int:
    """The side of pictures that are all equal squares of at most 256 pixels, else 224; from a sample."""
    seen = set()
    for index in np.linspace(0, len(rows) - 1, min(len(rows), 50)).astype(int):
        try:
            with open_picture(place_of(rows[int(index)][column])) as image:
                seen |= set(image.size)
        except BROKEN:
            continue
    return int(seen.pop()) if len(seen) == 1 and max(seen) <= NATIVE else 224
