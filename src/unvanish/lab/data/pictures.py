"""Image files: checked once, decoded in threads, held in memory if they are small.

Notable:
- Every image is decoded once before training, so a truncated one is reported and left out instead of failing
  late in a run.
- The results are cached under the files' names, sizes and times.
- JPEG files much larger than needed are decoded at a half, quarter or eighth of their size (PIL's draft).
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unvanish.lab.data.limits import FORMATS, open_picture
from unvanish.lab.data.part import Batch, Draw, Indices, Part, Tensors
from unvanish.lab.data.pixels import turn_upright
from unvanish.lab.data.places import cache_folder, fingerprint, write_cache
from unvanish.lab.data.problems import DataError, Problems

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
SMALL = 256_000_000  # bytes of decoded images that are kept in memory by default
BROKEN = (OSError, ValueError, SyntaxError, EOFError)
THREADS = min(8, os.cpu_count() or 1)
MANY = 2000  # images from which on the decoded ones are cached on disk
Reader = Callable[[Path], Tensor]


def from_pil(image: Image, channels: int) -> Tensor:
    """A PIL image as uint8 (channels, H, W), turned upright by its EXIF data."""
    array = np.array(turn_upright(image, "RGB" if channels == 3 else "L"))
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def decode_image(path: Path, channels: int) -> Tensor:
    """An image file as uint8 (channels, H, W); OSError if it is broken."""
    with open_picture(path) as image:
        return from_pil(image, channels)


def decode_square(path: Path, size: int, channels: int) -> Tensor:
    """The largest square in the middle of an image file, scaled to uint8 (channels, size, size)."""
    from PIL import Image, ImageOps

    with open_picture(path, ("RGB" if channels == 3 else "L", size)) as image:
        upright = turn_upright(image, "RGB" if channels == 3 else "L")
        fitted = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    array = np.array(fitted)
    return torch.from_numpy(array[None] if channels == 1 else array.transpose(2, 0, 1).copy())


def list_images(folder: Path) -> list[Path]:
    """The image files in and below a folder, in the order of their names; links are followed."""
    found, seen = [], set()
    for place, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        found += [os.path.join(place, name) for name in names if name.lower().endswith(SUFFIXES)]
    return [Path(file) for file in sorted(found)]


def check_image(path: Path) -> tuple[int, int] | str:
    """The upright size (width, height) of an image that decodes completely, or the reason why it does not."""
    from PIL import Image

    try:
        if path.stat().st_size == 0:
            return "the file is empty"
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
        with open_picture(path, ("RGB", 32)) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            turn_upright(image, "RGB").load()
    except (*BROKEN, Image.DecompressionBombError) as error:
        return f"not a readable image ({error})"
    return (height, width) if turned else (width, height)


def check_images(paths: Sequence[Path], problems: Problems) -> list[tuple[int, int] | None]:
    """The size of each image file, None for broken ones, which are reported; cached."""
    if not paths:
        return []
    place = cache_folder() / "scans" / f"{fingerprint(*paths)}.json"
    try:
        results = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        with ThreadPoolExecutor(THREADS) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's remarks on EXIF and palettes; failures are reported below
            results = list(pool.map(check_image, paths))
        write_cache(place, json.dumps(results).encode())
    sizes: list[tuple[int, int] | None] = []
    for path, result in zip(paths, results, strict=True):
        sizes.append(None if isinstance(result, str) else (int(result[0]), int(result[1])))
        if isinstance(result, str):
            problems.add(path, 0, "broken image", result)
    return sizes


def fits_in_memory(count: int, channels: int, size: int, cache: bool | None, problems: Problems) -> bool:
    """Whether decoded images are kept in memory: as `cache` says, or by default if they are small."""
    needed = count * channels * size * size
    free = free_memory()
    if cache and needed > 0.8 * free:
        why = f"{needed / 1e9:.1f} GB of decoded images do not fit into {free / 1e9:.1f} GB of free memory"
        problems.add("cache", 0, "cache not used", f"{why}; they are decoded each time")
        return False
    return needed <= SMALL if cache is None else cache


def free_memory() -> float:
    """Bytes of free memory; infinite if unknown."""
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return float("inf")


def decode_images(
    paths: Sequence[Path], read: Reader, key: str, problems: Problems
) -> tuple[Tensor, Indices]:
    """All readable images as one uint8 tensor (N, C, H, W), and their indices; the others are reported.

    They are decoded in threads; a result of many images is cached on disk under the files' fingerprint and
    `key`.
    """
    place = cache_folder() / "decoded" / f"{fingerprint(*paths)}-{key}.npy"
    if len(paths) >= MANY and place.is_file():
        return torch.from_numpy(np.load(place, allow_pickle=False)), np.arange(len(paths))

    def one(path: Path) -> Tensor | str:
        try:
            return read(path)
        except BROKEN as error:
            empty = path.is_file() and not path.stat().st_size
            return "the file is empty" if empty else f"not a readable image ({error})"

    with ThreadPoolExecutor(THREADS) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's remarks on EXIF and palettes; failures are reported
        results = list(pool.map(one, paths))
    good = [i for i, result in enumerate(results) if isinstance(result, Tensor)]
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, str):
            problems.add(path, 0, "broken image", result)
    images = torch.stack([r for r in results if isinstance(r, Tensor)]) if good else torch.empty(0, 1, 1, 1)
    if len(good) == len(paths) >= MANY:
        buffer = BytesIO()
        np.save(buffer, images.numpy())
        write_cache(place, buffer.getbuffer())
    return images, np.array(good, np.int64)


class Squares(Part):
    """Image files with a class each, decoded when a batch asks for them; x is uint8 (B, C, size, size)."""

    def __init__(self, paths: Sequence[Path], labels: Indices, size: int, channels: int) -> None:
        self.paths, self.classes, self.size, self.channels = list(paths), labels, size, channels

    @property
    def labels(self) -> Indices:
        return self.classes

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, path: Path) -> Tensor:
        """One image."""
        return decode_square(path, self.size, self.channels)

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        images = [try_to_read(self.read, self.paths[i]) for i in indices]
        good = [i for i, image in enumerate(images) if image is not None]
        if not good:
            raise DataError(f"{self.paths[indices[0]]} and all other images of a batch can no longer be read")
        chosen = [i if image is not None else good[0] for i, image in enumerate(images)]
        x = torch.stack([image for i in chosen if (image := images[i]) is not None])
        return x, torch.from_numpy(self.classes[indices[chosen]])

    def load(self, problems: Problems) -> Tensors:
        """Its readable images, in memory; the others are reported."""
        key = f"{self.size}x{self.channels}"
        images, good = decode_images(self.paths, self.read, key, problems)
        return Tensors(images, torch.from_numpy(self.classes[good]))

    def readable(self, problems: Problems) -> Squares:
        """Its readable images, still on disk; the others are reported."""
        good = [i for i, size in enumerate(check_images(self.paths, problems)) if size]
        return Squares([self.paths[i] for i in good], self.classes[good], self.size, self.channels)


def try_to_read(read: Reader, path: Path) -> Tensor | None:
    """Read an image; None with a warning if the file has broken since it was checked."""
    try:
        return read(path)
    except BROKEN as error:
        warnings.warn(f"{path} was readable before and is not now ({error}); it is left out", stacklevel=2)
        return None
