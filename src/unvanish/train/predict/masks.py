"""The masks that a segmenter found, in pixels of the original image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unvanish.lab.data.letterbox import Letterbox
from unvanish.lab.detection.contour import outline
from unvanish.lab.detection.masks import inside_boxes, mix_masks
from unvanish.train.predict.boxes import place_boxes
from unvanish.train.predict.movable import Movable


@dataclass(frozen=True)
class Masks(Movable):
    """Masks of an image, `data` (n, H, W) of booleans, in the order of its boxes; a tensor or an array."""

    data: Any
    orig_shape: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the masks."""
        return tuple(self.data.shape)

    @property
    def area(self) -> Any:
        """The number of pixels of each mask, (n,)."""
        return self.data.sum((1, 2))

    @property
    def xy(self) -> list[npt.NDArray[np.float32]]:
        """The outline (n, 2) of each mask's largest part in pixels, without holes; (0, 2) of an empty one."""
        return [outline(mask) for mask in torch.as_tensor(self.data).cpu().numpy()]

    @property
    def xyn(self) -> list[npt.NDArray[np.float32]]:
        """The outlines in shares of the image."""
        sides = np.array(self.orig_shape[::-1], np.float32)
        return [xy / sides for xy in self.xy]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Masks:
        masks = self.data[index]
        return Masks(masks[None] if masks.ndim == 2 else masks, self.orig_shape)


def place_masks(rows: Tensor, prototypes: Tensor, shape: tuple[int, int], size: int) -> Masks:
    """Masks from rows (n, 6 + E) and prototypes (E, h, w) in a letterbox of side `size` around an image of
    `shape` (height, width).
    """
    logits = mix_masks(rows[:, 6:], prototypes)
    if not len(rows):
        return Masks(torch.zeros(0, *shape, dtype=torch.bool), shape)
    box = Letterbox(shape, size)
    (top, left), (high, wide) = box.corner, box.inner
    large = interpolate(logits[None], (size, size), mode="bilinear", align_corners=False)
    own = interpolate(large[..., top : top + high, left : left + wide], shape, mode="bilinear")
    within = inside_boxes(place_boxes(rows, shape, size).xyxy, *shape)
    return Masks((own[0] > 0) & within, shape)
