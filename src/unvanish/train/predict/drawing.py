"""Boxes drawn on their images, with their class and confidence, masks shaded, classes listed.

Notable:
- A text stands above its box, else within or below it, at the first place without another text. It loses its
  confidence, then its last letters, if it is wider than the picture.
- A confidence that is NaN (that of a label) is not written.
- A picture on which nothing was found says so.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from unvanish.core.names import show
from unvanish.store.files import write_whole
from unvanish.train.predict.boxes import Boxes
from unvanish.train.predict.masks import Masks

if TYPE_CHECKING:
    from PIL.Image import Image

GOLDEN = 0.618  # turns of the hue from class to class, so that neighbours differ
SMALLEST, LARGEST = 10, 40  # pixels, of the letters
SHADE, EDGE = 0.4, 3  # share of a mask's colour, and twice the width of its edge, less one
FEW = 2  # letters to which a name is cut at most
NOTHING = "nothing found"
DARK = (20, 20, 20)
Place = tuple[float, float, float, float]  # x1, y1, x2, y2
Names = Mapping[int, str] | Sequence[str]


@dataclass(frozen=True)
class Style:
    """What is drawn, how wide lines are, and how large letters; None: by the picture's size."""

    conf: bool = True
    labels: bool = True
    boxes: bool = True
    masks: bool = True
    line_width: float | None = None
    font_size: float | None = None


PLAIN = Style()


def choose_colour(label: int) -> tuple[int, int, int]:
    """The colour of a class."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + label * GOLDEN) % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(
    image: Tensor,
    boxes: Boxes,
    names: Names,
    masks: Masks | None = None,
    look: Style = PLAIN,
    none: str = NOTHING,
) -> Image:
    """The image, uint8 (3, H, W), with boxes, their classes and confidences, and shaded masks.

    `none` is written on a picture without boxes.
    """
    from PIL import ImageDraw

    canvas = paint(shade_masks(image, boxes, masks) if look.masks else image)
    pen = ImageDraw.Draw(canvas)
    rows = boxes.data.tolist()
    line = round(look.line_width) if look.line_width else max(1, round(sum(canvas.size) / 400))
    for x1, y1, x2, y2, _, label in rows[::-1] if look.boxes else ():  # the most confident on top
        pen.rectangle(
            (x1, y1, max(x1, x2), max(y1, y2)), outline=choose_colour(int(label)), width=max(1, line)
        )
    letters = choose_font(sum(canvas.size) / 2, look.font_size)
    if not rows and none:
        write_lines(canvas, [none], letters)
    taken = list[Place]()
    for x1, y1, x2, y2, score, label in rows if look.labels and look.boxes else ():
        text = fit_text(
            pen, letters, canvas.width, name_class(int(label), names), score if look.conf else math.nan
        )
        wide, high = pen.textbbox((0, 0), text, font=letters, anchor="lt")[2:]
        place = find_place((x1, y1, x2, y2), (wide + 4, high + 4), canvas.size, taken)
        taken.append(place)
        shade = choose_colour(int(label))
        pen.rectangle(place, fill=shade)
        pen.text((place[0] + 2, place[1] + 2), text, fill=contrast(shade), font=letters, anchor="lt")
    return canvas


def draw_words(image: Tensor, lines: Sequence[str], look: Style = PLAIN) -> Image:
    """The image, uint8 (3, H, W) or (1, H, W), with lines of text in its corner."""
    canvas = paint(image.expand(3, -1, -1))
    if look.labels:
        write_lines(canvas, lines, choose_font(sum(canvas.size) / 2, look.font_size))
    return canvas


def paint(image: Tensor) -> Image:
    """A tensor (3, H, W) of bytes as a PIL image."""
    from PIL.Image import fromarray

    return fromarray(image.permute(1, 2, 0).contiguous().numpy())


def write_lines(canvas: Image, lines: Sequence[str], letters: Any) -> None:
    """Write lines into the upper left corner, on dark ground, as many as fit into the picture."""
    from PIL import ImageDraw

    pen, y = ImageDraw.Draw(canvas), 0.0
    for line in lines:
        text = cut_text(pen, letters, canvas.width, line)
        wide, high = pen.textbbox((0, 0), text, font=letters, anchor="lt")[2:]
        if y and y + high + 4 > canvas.height:
            break
        pen.rectangle((0, y, wide + 4, y + high + 4), fill=DARK)
        pen.text((2, y + 2), text, fill=contrast(DARK), font=letters, anchor="lt")
        y += high + 4


def fit_text(pen: Any, letters: Any, room: float, name: str, score: float) -> str:
    """A class's name and its confidence; without that, then shorter, if they need more than `room` pixels."""
    whole = name if math.isnan(score) else f"{name} {score:.2f}"
    return whole if pen.textlength(whole, font=letters) + 4 <= room else cut_text(pen, letters, room, name)


def cut_text(pen: Any, letters: Any, room: float, text: str) -> str:
    """A text without the last letters that do not fit into `room` pixels."""
    while len(text) > FEW and pen.textlength(text, font=letters) + 4 > room:
        text = text[:-1]
    return text


def choose_font(side: float, size: float | None = None) -> Any:
    """The font of a size in pixels, or that for a picture of `side` pixels a side."""
    from PIL import ImageFont

    return ImageFont.load_default(size or min(LARGEST, max(SMALLEST, round(side / 28))))


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
    """The image with each mask shaded in the colour of its class, its edge in full."""
    if masks is None:
        return image
    painted = image.clone()
    for mask, label in zip(masks.data, boxes.cls.tolist(), strict=True):
        paint = image.new_tensor(choose_colour(int(label)))[:, None]
        edge = mask & (max_pool2d((~mask)[None].float(), EDGE, 1, EDGE // 2)[0] > 0)
        painted[:, mask] = (painted[:, mask] * (1 - SHADE) + paint * SHADE).to(torch.uint8)
        painted[:, edge] = paint
    return painted


def name_class(label: int, names: Names) -> str:
    """The name of a class; its number if it has none."""
    return show(names[label]) if label < len(names) else str(label)


def save_picture(picture: Image, path: Path, quality: int = 90) -> Path:
    """Write a picture whole or not at all, in the format of the path's ending; OSError says why not."""
    with write_whole(path, "picture") as partial:
        picture.save(partial, quality=quality)
    return path
