"""Boxes drawn on their images, with their class and confidence, and masks shaded.

Notable: a text stands above its box, else within or below it, at the first place without another text; a
confidence that is NaN (that of a label) is not written.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unvanish.core.names import show
from unvanish.store.files import write_whole
from unvanish.train.predict.boxes import Boxes
from unvanish.train.predict.masks import Masks

if TYPE_CHECKING:
    from PIL.Image import Image

GOLDEN = 0.618  # turns of the hue from class to class, so that neighbours differ
SMALLEST, LARGEST = 10, 40  # pixels, of the letters
Place = tuple[float, float, float, float]  # x1, y1, x2, y2


def choose_colour(label: int) -> tuple[int, int, int]:
    """The colour of a class."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + label * GOLDEN) % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(image: Tensor, boxes: Boxes, names: Sequence[str], masks: Masks | None = None) -> Image:
    """The image, uint8 (3, H, W), with boxes, their classes and confidences, and shaded masks."""
    from PIL import ImageDraw
    from PIL.Image import fromarray

    canvas = fromarray(shade_masks(image, boxes, masks).permute(1, 2, 0).contiguous().numpy())
    pen = ImageDraw.Draw(canvas)
    rows = boxes.data.tolist()
    line = max(1, round(sum(canvas.size) / 400))
    for x1, y1, x2, y2, _, label in rows[::-1]:  # the most confident on top
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=choose_colour(int(label)), width=line)
    letters, taken = choose_font(sum(canvas.size) / 2), list[Place]()
    for x1, y1, x2, y2, score, label in rows:
        text = name_class(int(label), names) + ("" if math.isnan(score) else f" {score:.2f}")
        wide, high = pen.textbbox((0, 0), text, font=letters, anchor="lt")[2:]
        place = find_place((x1, y1, x2, y2), (wide + 4, high + 4), canvas.size, taken)
        taken.append(place)
        shade = choose_colour(int(label))
        pen.rectangle(place, fill=shade)
        pen.text((place[0] + 2, place[1] + 2), text, fill=contrast(shade), font=letters, anchor="lt")
    return canvas


def choose_font(side: float) -> Any:
    """The font for a picture of `side` pixels a side."""
    from PIL import ImageFont

    return ImageFont.load_default(min(LARGEST, max(SMALLEST, round(side / 28))))


def contrast(shade: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, by the luminance of the colour behind it (Rec. 601)."""
    bright = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] > 128
    return (0, 0, 0) if bright else (255, 255, 255)


def find_place(
    box: Place, size: tuple[float, float], within: tuple[int, int], taken: Sequence[Place]
) -> Place:
    """The place (x1, y1, x2, y2) of a text of (width, height): the first that is free, else above the box."""
    (x1, y1, x2, y2), (wide, high), (most_x, most_y) = box, size, within
    left, right = (max(0.0, min(x, most_x - wide)) for x in (x1, x2 - wide))
    tries = [(x, y) for y in (y1 - high, y1, y2, y2 - high) for x in (left, right)]
    inside = [(x, y, x + wide, y + high) for x, y in tries if 0 <= y <= most_y - high]
    free = (p for p in inside if not any(_touch(p, other) for other in taken))
    return next(free, inside[0] if inside else (left, 0.0, left + wide, high))


def _touch(a: Place, b: Place) -> bool:
    """Whether two places overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def shade_masks(image: Tensor, boxes: Boxes, masks: Masks | None) -> Tensor:
    """The image, half of the colour of each mask's pixels taken from its class."""
    if masks is None:
        return image
    painted = image.clone()
    for mask, label in zip(masks.data, boxes.cls.tolist(), strict=True):
        paint = image.new_tensor(choose_colour(int(label)))[:, None]
        painted[:, mask] = painted[:, mask] // 2 + paint // 2
    return painted


def name_class(label: int, names: Sequence[str]) -> str:
    """The name of a class; its number if it has none."""
    return show(names[label]) if label < len(names) else str(label)


def save_picture(picture: Image, path: Path, quality: int = 90) -> Path:
    """Write a picture whole or not at all, in the format of the path's ending; OSError says why not."""
    with write_whole(path, "picture") as partial:
        picture.save(partial, quality=quality)
    return path
