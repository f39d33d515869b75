"""Generated pictures of circles, squares, triangles and stars, with classes, boxes and polygons.

For classification there is one shape per image; for detection and segmentation one to `most`, which do not
touch, with the boxes and outlines they were drawn from. Colours, sizes, angles and noise come from a fixed
seed, so the set is always the same, and no file is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unvanish.lab.data.boxes import Boxed, BoxLabels, shares
from unvanish.lab.data.content import Content, Source, tensor_content
from unvanish.lab.data.labels import Labels, extent
from unvanish.lab.data.letterbox import Floats
from unvanish.lab.data.limits import refuse_large
from unvanish.lab.data.problems import DataError
from unvanish.lab.data.scenes import Scenes

TASKS = ("classify", "detect", "segment")
MOST, FEW = 200_000, 100  # samples, shapes on one
FINE = 2  # images are drawn larger by this factor and scaled down
Bytes = npt.NDArray[np.uint8]


def regular_polygon(corners: int, inner: float = 1.0) -> Floats:
    """A regular polygon of radius 1; with `inner` below 1 a star, whose notches lie at that radius."""
    count = corners * 2 if inner < 1 else corners
    radius = np.where(np.arange(count) % 2, inner, 1.0) if inner < 1 else np.ones(count)
    angle = 2 * math.pi * np.arange(count) / count - math.pi / 2
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)


SHAPES: dict[str, Floats] = {
    "circle": regular_polygon(32),
    "square": regular_polygon(4),
    "triangle": regular_polygon(3),
    "star": regular_polygon(5, 0.45),
}
NAMES = tuple(SHAPES)


@dataclass(frozen=True)
class Picture:
    """One generated image: pixels (size, size, 3) and its labels."""

    pixels: Bytes
    labels: Labels


def read(
    source: Source, *, samples: int = 1024, val_samples: int = 256, most: int = 4, size: int = 64
) -> Content:
    """Pictures of shapes, `imgsz` pixels wide, or `size` without it."""
    side = source.imgsz or size
    if samples + val_samples > MOST or most > FEW:
        raise DataError(f"{source.spec.name}: at most {MOST:,} samples of {FEW} shapes are drawn")
    refuse_large(3.0 * max(samples + val_samples, 24) * side * side, "samples and size")
    count = 1 if source.task == "classify" else most
    parts = [draw_pictures(number, side, count, seed) for number, seed in ((samples, 0), (val_samples, 1))]
    if source.task == "classify":
        train, val = (
            (stack_images(p), torch.tensor([int(one.labels.classes[0]) for one in p])) for p in parts
        )
        return tensor_content(source, train, val, NAMES, max(1, side // 16), True)
    facts = {"classes": len(NAMES), "channels": 3, "size": side}
    preparation = {"input": "letterbox", **facts, "names": list(NAMES)}
    boxed = [boxed_part(p, side, source.task == "segment") for p in parts]
    return Content(boxed[0], boxed[1], facts, NAMES, None, Scenes(), shares, preparation)


def draw_pictures(count: int, size: int, most: int, seed: int) -> list[Picture]:
    """The first `count` pictures of a seed, with 1 to `most` shapes each; classes are balanced."""
    return [draw_picture(np.random.default_rng([seed, i]), i, size, most) for i in range(count)]


def stack_images(parts: list[Picture]) -> Tensor:
    """The pixels of pictures as one tensor (N, 3, size, size)."""
    return torch.from_numpy(np.stack([p.pixels for p in parts]).transpose(0, 3, 1, 2).copy())


def boxed_part(parts: list[Picture], size: int, masked: bool = False) -> Boxed:
    """The pictures as a part with boxes and polygons, and with masks if `masked`."""
    records = [BoxLabels(Path(f"shape-{i}"), (size, size), p.labels) for i, p in enumerate(parts)]
    return Boxed(records, size, stack_images(parts), masked)


def draw_picture(generator: np.random.Generator, number: int, size: int, most: int) -> Picture:
    """Draw one picture; its first shape has class `number` modulo the number of classes."""
    count = int(generator.integers(1, most + 1))
    outlines = place_shapes(generator, count, number)
    background = generator.integers(0, 256, 3)
    colours = [contrasting_colour(generator, background) for _ in outlines]
    noise = generator.normal(0, 6, (size, size, 3))
    pixels = np.clip(fill_outlines([o for _, o in outlines], colours, background, size) + noise, 0, 255)
    polygons = tuple(outline for _, outline in outlines)
    classes = np.array([c for c, _ in outlines], np.int64)
    labels = Labels(classes, np.stack([extent(p) for p in polygons]), polygons)
    return Picture(pixels.astype(np.uint8), labels)


def place_shapes(generator: np.random.Generator, count: int, number: int) -> list[tuple[int, Floats]]:
    """Up to `count` shapes as (class, outline in shares of the image), whose circles do not touch."""
    taken: list[tuple[float, float, float]] = []
    found: list[tuple[int, Floats]] = []
    largest = 0.42 if count == 1 else 0.24
    for attempt in range(20 * count):
        radius = float(generator.uniform(0.1 if count > 1 else 0.2, largest))
        x, y = (float(v) for v in generator.uniform(radius, 1 - radius, 2))
        kind = number % len(NAMES) if not found else int(generator.integers(len(NAMES)))
        turn = float(generator.uniform(0, 2 * math.pi))
        if all(math.hypot(x - a, y - b) > radius + r for a, b, r in taken):
            taken.append((x, y, radius))
            found.append((kind, rotate(SHAPES[NAMES[kind]], turn) * radius + np.array([x, y], np.float32)))
        if len(found) == count or attempt == 20 * count - 1:
            break
    return found


def rotate(outline: Floats, angle: float) -> Floats:
    """Rotate points about the origin."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return outline @ np.array([[cosine, sine], [-sine, cosine]], np.float32)


def contrasting_colour(generator: np.random.Generator, background: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """A colour at least 100 levels away from the background in one channel."""
    while True:
        colour = generator.integers(0, 256, 3)
        if np.abs(colour - background).max() >= 100:
            return tuple(int(c) for c in colour)


def fill_outlines(
    outlines: list[Floats], colours: list[tuple[int, ...]], background: npt.NDArray[np.int64], size: int
) -> npt.NDArray[np.float64]:
    """Fill outlines on a plain background, as floats (size, size, 3)."""
    from PIL import Image, ImageDraw

    large = size * FINE
    canvas = Image.new("RGB", (large, large), tuple(int(c) for c in background))
    pen = ImageDraw.Draw(canvas)
    for outline, colour in zip(outlines, colours, strict=True):
        pen.polygon([tuple(point) for point in (outline * large).tolist()], fill=colour)
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float64)
