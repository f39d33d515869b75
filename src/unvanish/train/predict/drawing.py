"""Boxes drawn on their images, with their class and confidence, and masks shaded.

Notable: what is written stands above its box, else within or below it, wherever nothing is written yet; a
confidence that is NaN (a label has none) is not written.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

    from unvanish.train.predict.boxes import Boxes
    from unvanish.train.predict.masks import Masks

GOLDEN = 0.618  # of a turn of the hue from class to class, so that neighbours differ
SMALLEST, LARGEST = 10, 40  # pixels of the letters
Place = tuple[float, float, float, float]  # x1, y1, x2, y2


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
    rows = boxes.data.tolist()
    line = max(1, round(sum(canvas.size) / 400))
    for x1, y1, x2, y2, _, label in rows[::-1]:  # the surest on top
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour(int(label)), width=line)
    letters, written = font(sum(canvas.size) / 2), list[Place]()
    for x1, y1, x2, y2, score, label in rows:
        text = name_of(int(label), names) + ("" if math.isnan(score) else f" {score:.2f}")
        wide, high = pen.textbbox((0, 0), text, font=letters, anchor="lt")[2:]
        place = placed((x1, y1, x2, y2), (wide + 4, high + 4), canvas.size, written)
        written.append(place)
        shade = colour(int(label))
        pen.rectangle(place, fill=shade)
        pen.text((place[0] + 2, place[1] + 2), text, fill=legible(shade), font=letters, anchor="lt")
    return canvas


def font(side: float) -> Any:
    """Letters for a picture of so many pixels a side."""
    from PIL import ImageFont

    return ImageFont.load_default(min(LARGEST, max(SMALLEST, round(side / 28))))


def legible(shade: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever is read better on a colour (by its luminance, Rec. 601)."""
    bright = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] > 128
    return (0, 0, 0) if bright else (255, 255, 255)


def placed(box: Place, size: tuple[float, float], within: tuple[int, int], taken: Sequence[Place]) -> Place:
    """Where (x1, y1, x2, y2) a text of (width, height) goes: the first place that is free, else above."""
    (x1, y1, x2, y2), (wide, high), (most_x, most_y) = box, size, within
    left, right = (max(0.0, min(x, most_x - wide)) for x in (x1, x2 - wide))
    tries = [(x, y) for y in (y1 - high, y1, y2, y2 - high) for x in (left, right)]
    inside = [(x, y, x + wide, y + high) for x, y in tries if 0 <= y <= most_y - high]
    free = (p for p in inside if not any(_touch(p, other) for other in taken))
    return next(free, inside[0] if inside else (left, 0.0, left + wide, high))


def _touch(a: Place, b: Place) -> bool:
    """Whether two places overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


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
