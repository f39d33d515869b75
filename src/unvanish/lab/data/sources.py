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
import torch
from torch import Tensor

from unvanish.lab.data.download import TIMEOUT, reason
from unvanish.lab.data.limits import open_picture
from unvanish.lab.data.pictures import BROKEN, SUFFIXES, decode_image, from_pil, list_images
from unvanish.lab.data.problems import DataError
from unvanish.lab.data.video import frames, is_video

LARGEST = 256_000_000  # bytes of an image at an address


def read_pictures(source: Any, channels: int) -> Iterator[tuple[str, Tensor]]:
    """Yield (origin, uint8 image (channels, H, W)) for every image; DataError if there is none."""
    from PIL.Image import Image

    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        yield source, _fetch_image(source, channels)
    elif isinstance(source, str | Path):
        for path in _files(source):
            yield from _of_file(path, channels)
    elif isinstance(source, list | tuple | Iterator):
        for index, entry in enumerate(source):
            for origin, image in read_pictures(entry, channels):
                yield (origin if isinstance(entry, str | Path) else f"image {index}"), image
    elif isinstance(source, Tensor | np.ndarray):
        yield "array", _channels(torch.as_tensor(source), channels)
    elif isinstance(source, Image):
        yield getattr(source, "filename", "") or "image", from_pil(source, channels)
    else:
        raise DataError(
            f"a source of type {type(source).__name__} is not an image; give a file, a folder, a glob, a"
            " video, an address, an array, a tensor, a PIL image, or a list of these"
        )


def _of_file(path: Path, channels: int) -> Iterator[tuple[str, Tensor]]:
    if is_video(path):
        yield from ((origin, _channels(frame, channels)) for origin, frame in frames(path))
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


def _channels(image: Tensor, channels: int) -> Tensor:
    """An array (H, W), (H, W, C) or (C, H, W) of uint8 as (channels, H, W)."""
    if image.dtype is not torch.uint8:
        raise DataError(f"an image as an array must be uint8 (0 to 255), it is {image.dtype}")
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3 and image.shape[-1] in (1, 3) and image.shape[0] not in (1, 3):
        image = image.permute(2, 0, 1)
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(f"an image must be (H, W), (H, W, C) or (C, H, W), it is {tuple(image.shape)}")
    if image.shape[0] == channels:
        return image.contiguous()
    return image.expand(3, -1, -1) if channels == 3 else image.float().mean(0, keepdim=True).to(torch.uint8)
