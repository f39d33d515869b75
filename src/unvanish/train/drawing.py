"""Predictions drawn on their images: boxes with their class and confidence."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

    from unvanish.train.boxes import Boxes
    from unvanish.train.masks import Masks

GOLDEN = 0.618  # of a turn of the hue from class to class, so that neighbours differ


def colour(label: int) -> tuple[int, int, int]:
    """The colour of a class."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + label * GOLDEN) % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def drawn(image: Tensor, boxes: Boxes, names: Sequence[str], masks: Masks | None = None) -> Image:
    """The image, uint8 (3, H, W), with boxes and what they are, and their masks shaded."""
    from PIL import ImageDraw
    from PIL.Image import fromarray

    canvas = fromarray(shaded(image, boxes, masks).permute(1, 2, 0).contiguous().numpy())
    pen = ImageDraw.Draw(canvas)
    line = max(1, round(sum(canvas.size) / 400))
    for x1, y1, x2, y2, score, label in boxes.data.tolist()[::-1]:  # the surest on top
        shade, text = colour(int(label)), f"{name_of(int(label), names)} {score:.2f}"
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=shade, width=line)
        wide, high = pen.textbbox((0, 0), text)[2:]
        top = y1 - high - 2 if y1 > high + 2 else y1
        pen.rectangle((x1, top, x1 + wide + 3, top + high + 2), fill=shade)
        pen.text((x1 + 2, top), text, fill=(0, 0, 0))
    return canvas


def shaded(image: Tensor, boxes: Boxes, masks: Masks | None) -> Tensor:
    """The image with half of each mask's pixels' colour from its class."""
    if masks is None:
        return image
    made = image.clone()
    for mask, label in zip(masks.data, boxes.cls.tolist(), strict=True):
        paint = image.new_tensor(colour(int(label)))[:, None]
        made[:, mask] = made[:, mask] // 2 + paint // 2
    return made


def name_of(label: int, names: Sequence[str]) -> str:
    """The name of a class, its number where it has none."""
    return names[label] if label < len(names) else str(label)
