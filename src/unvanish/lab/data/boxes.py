"""Parts for detection and segmentation: letterboxed images with their labels.

A batch is x, uint8 (B, 3, S, S), and y, float (M, 6): for each object of the batch the number of its image,
its class, and its box x, y, w, h in shares of the square. A `masked` part gives these rows and their masks,
uint8 (M, S / 4, S / 4). `labels_at` gives the polygons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unvanish.lab.data.labels import Labels
from unvanish.lab.data.letterbox import Letterbox, letterbox_file
from unvanish.lab.data.outlines import masks_of
from unvanish.lab.data.part import Batch, Draw, Indices, Part
from unvanish.lab.data.pictures import try_to_read


@dataclass(frozen=True)
class BoxLabels:
    """One labelled image: its file, its (height, width), and its labels."""

    path: Path
    shape: tuple[int, int]
    labels: Labels


class Boxed(Part):
    """Images with labels, in memory (`images`) or decoded when a batch asks for them."""

    def __init__(
        self, records: Sequence[BoxLabels], size: int, images: Tensor | None = None, masked: bool = False
    ) -> None:
        self.records, self.size, self.images, self.masked = list(records), size, images, masked
        self.in_memory = images is not None

    def __len__(self) -> int:
        return len(self.records)

    def some(self, kept: Indices) -> Boxed:
        """A part of some of its images."""
        images = None if self.images is None else self.images[torch.from_numpy(kept)]
        return Boxed([self.records[i] for i in kept], self.size, images, self.masked)

    def labels_at(self, index: int) -> Labels:
        """The labels of an image in shares of its square."""
        record = self.records[index]
        box, labels = Letterbox(record.shape, self.size), record.labels
        return replace(
            labels,
            boxes=box.boxes(labels.boxes),
            polygons=tuple(box.points(polygon) for polygon in labels.polygons),
        )

    def image(self, index: int) -> Tensor:
        """An image as uint8 (3, S, S); grey if its file has broken since it was checked."""
        if self.images is not None:
            return self.images[index]
        read = try_to_read(self.read, self.records[index].path)
        return torch.full((3, self.size, self.size), 114, dtype=torch.uint8) if read is None else read

    def read(self, path: Path) -> Tensor:
        """An image file, letterboxed."""
        return letterbox_file(path, self.size)

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        labels = [self.labels_at(int(i)) for i in indices]
        y: Any = torch.cat([targets(number, one) for number, one in enumerate(labels)])
        if self.masked:
            y = y, masks_of([polygon for one in labels for polygon in one.polygons], self.size)
        if self.images is not None:
            return self.images.index_select(0, torch.from_numpy(indices)), y
        return torch.stack([self.image(int(i)) for i in indices]), y


def targets(number: int, labels: Labels) -> Tensor:
    """Rows (N, 6) of an image's labels: number, class, x, y, w, h."""
    count = len(labels.classes)
    columns = [np.full(count, number, np.float32), labels.classes.astype(np.float32)]
    return torch.from_numpy(np.concatenate([np.stack(columns, 1), labels.boxes], 1))


def shares(batch: Batch, generator: torch.Generator) -> Batch:
    """The images of a batch as floats from 0 to 1."""
    return batch[0].float().mul_(1 / 255), batch[1]
