"""Pictures from files, folders, globs, videos, addresses, arrays and lists.

Notable: they are read one by one, so a long video or an endless iterator needs no memory.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from glob import glob
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unvanish.core.caution import caution
from unvanish.lab.data.download import TIMEOUT, reason
from unvanish.lab.data.limits import open_picture
from unvanish.lab.data.pictures import BROKEN, SUFFIXES, decode_image, from_pil, list_images
from unvanish.lab.data.pixels import read_array
from unvanish.lab.data.problems import DataError
from unvanish.lab.data.video import frames, is_video

LARGEST = 256_000_000  # bytes of an image at an address


def read_pictures(source: Any, channels: int, rgb: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Yield (origin, uint8 image (channels, H, W)) for every image; DataError if there is none.

    `rgb`: NumPy arrays hold red, green, blue; else they are in OpenCV's order. Of several files those that
    cannot be read are left out, with a warning.
    """
    from PIL.Image import Image

    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        yield source, _fetch_image(source, channels)
    elif isinstance(source, str | Path):
        yield from _of_files(_files(source), channels)
    elif isinstance(source, list | tuple | Iterator):
        for index, entry in enumerate(source):
            for origin, image in read_pictures(entry, channels, rgb):
                yield (origin if isinstance(entry, str | Path) else f"image {index}"), image
    elif isinstance(source, Tensor | np.ndarray):
        images = list(read_array(source, channels, rgb))
        yield from ((f"array {i}" if len(images) > 1 else "array", image) for i, image in enumerate(images))
    elif isinstance(source, Image):
        yield getattr(source, "filename", "") or "image", from_pil(source, channels)
    else:
        raise DataError(
            f"a source of type {type(source).__name__} is not an image; give a file, a folder, a glob, a"
            " video, an address, an array, a tensor, a PIL image, or a list of these"
        )


def _of_files(paths: list[Path], channels: int) -> Iterator[tuple[str, Tensor]]:
    """The images of files; one that cannot be read is left out with a warning, unless it is the only one."""
    read = 0
    for path in paths:
        try:
            for found in _of_file(path, channels):
                read += 1
                yield found
        except DataError as error:
            if len(paths) == 1:
                raise
            caution(f"unvanish: {error}; it is left out")
    if not read:
        raise DataError(f"none of {len(paths):,} files can be read as an image, {paths[0]} first")


def _of_file(path: Path, channels: int) -> Iterator[tuple[str, Tensor]]:
    if is_video(path):
        yield from ((origin, next(read_array(frame, channels, True))) for origin, frame in frames(path))
    else:
        yield str(path), _decode(path, channels)


def _files(source: str | Path) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        found = list_images(path)
    else:
        found = [path] if path.is_file() else sorted(map(Path, glob(str(path), recursive=True)))
    if not found:
        raise DataError(f"{source}: no image found; files of {' '.join(SUFFIXES)} are read")
    return found


def _decode(path: Path, channels: int) -> Tensor:
    try:
        return decode_image(path, channels)
    except BROKEN as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def _fetch_image(address: str, channels: int) -> Tensor:
    """The image at an address."""
    request = urllib.request.Request(address, headers={"User-Agent": "unvanish"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            content = answer.read(LARGEST)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DataError(
            f"{address} could not be fetched ({reason(error)}); fetch it by hand and give the file"
        ) from error
    try:
        with open_picture(BytesIO(content)) as image:
            return from_pil(image, channels)
    except BROKEN as error:
        raise DataError(
            f"{address} is not an image ({error}); only images are read from an address, fetch others by hand"
        ) from error
