"""Pixels as bytes: pictures of 16 bits and of fractions, arrays as people's programs hand them over.

Notable:
- Bytes are 0 to 255, 16 bits 0 to 65,535; fractions are 0 to 1, or else 0 to 255. Nothing is stretched by its
  own extremes, so two pictures of a set stay comparable.
- A NumPy array with three colours is in the order of OpenCV (blue, green, red), as its users' arrays are,
  unless `rgb` says otherwise; a tensor is always red, green, blue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unvanish.lab.data.problems import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

WIDE = 257  # 65,535 / 255
COLOURS = (1, 3, 4)  # grey, three, three with opacity
DEEP = ("I", "F")  # PIL's modes of more than eight bits begin so


def turn_upright(image: Image, mode: str) -> Image:
    """A PIL image in mode RGB or L, turned by its EXIF data, eight bits a colour; OSError if it has none."""
    from PIL import Image as pil
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(DEEP):
        try:
            upright = pil.fromarray(to_bytes(np.asarray(upright)))
        except DataError as error:
            raise OSError(str(error)) from error
    return upright.convert(mode)


def to_bytes(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Pixels of any usual range as 0 to 255; DataError if their range is none of these."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype.kind not in "uif" or not np.isfinite(pixels).all():
        raise DataError(f"pixels must be finite numbers, they are {pixels.dtype}")
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    if pixels.dtype == np.uint16 or (pixels.dtype.kind in "ui" and high > 255):
        most, factor = 65_535.0, 1 / WIDE
    elif pixels.dtype.kind == "f" and high <= 1.0 + 1e-3:
        most, factor = 1.001, 255.0
    else:
        most, factor = 255.5, 1.0
    if low < -1e-3 * most or high > most:
        raise DataError(
            f"pixels from {low:g} to {high:g} are no picture: bytes go from 0 to 255, 16 bits to 65,535,"
            " fractions from 0 to 1"
        )
    return np.clip(np.rint(pixels.astype(np.float64) * factor), 0, 255).astype(np.uint8)


def read_array(source: Any, channels: int, rgb: bool) -> Iterator[Tensor]:
    """The images of an array or a tensor, one or a batch, as uint8 (channels, H, W)."""
    turned = isinstance(source, np.ndarray) and not rgb
    if isinstance(source, Tensor):
        held = source.detach().cpu()
        source = (held.float() if held.dtype == torch.bfloat16 else held).numpy()
    pixels = to_bytes(np.ascontiguousarray(source))  # of a batch as a whole
    for image in pixels if pixels.ndim == 4 else [pixels]:
        yield _arrange(image, channels, turned)


def _arrange(image: npt.NDArray[np.uint8], channels: int, turned: bool) -> Tensor:
    """An array (H, W), (H, W, C) or (C, H, W) as (channels, H, W); `turned`: blue comes first."""
    shape = image.shape
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3 and image.shape[-1] in COLOURS and image.shape[0] not in COLOURS:
        image = image.transpose(2, 0, 1)
    if image.ndim != 3 or image.shape[0] not in COLOURS or not image.size:
        raise DataError(
            f"an image must be (H, W), (H, W, C) or (C, H, W), alone or in a batch; it is {shape}"
        )
    image = image[:3]
    if turned and image.shape[0] == 3:
        image = image[::-1]
    pixels = torch.from_numpy(np.ascontiguousarray(image))
    if pixels.shape[0] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(3, -1, -1).contiguous()
    weights = torch.tensor([299.0, 587.0, 114.0])[:, None, None] / 1000  # as PIL's grey, ITU-R 601-2
    return (pixels * weights).sum(0, keepdim=True).round().to(torch.uint8)
