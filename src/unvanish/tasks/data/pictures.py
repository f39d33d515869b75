"""Image files: decoded to uint8 tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def from_pil(image: Image, channels: int) -> Tensor:
    """A PIL image as uint8 (channels, H, W), turned upright as its EXIF says."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")
    array = np.array(upright)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def decoded(path: Path, channels: int) -> Tensor:
    """An image file as uint8 (channels, H, W); OSError where it is broken."""
    from PIL import Image

    with Image.open(path) as image:
        return from_pil(image, channels)
