"""Images and labels as idx files, plain or gzip: the form of MNIST and Fashion-MNIST (LeCun et al. 1998).

An idx file is a magic number (two zero bytes, a type, the number of dimensions), the dimensions as 32-bit
big-endian numbers, and the values. The test files serve as validation.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unvanish.lab.data.content import Content, Source, tensor_content
from unvanish.lab.data.limits import unzip
from unvanish.lab.data.problems import DataError

TASKS = ("classify",)
BYTES = 0x08  # the type of unsigned bytes


def read(source: Source, *, crop: int = 0, flip: bool = False) -> Content:
    """The four files train/t10k-images/labels."""
    train, val = pair(source, "train"), pair(source, "t10k")
    names = source.spec.names or tuple(str(i) for i in range(int(train[1].max()) + 1))
    return tensor_content(source, train, val, names, crop, flip)


def pair(source: Source, part: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, H, W) and labels (N,) of one part."""
    files = [source.need(*spellings(part, what, dims)) for what, dims in (("images", 3), ("labels", 1))]
    images, labels = (values(file) for file in files)
    if not images.size or images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        shapes = f"{images.shape} and {labels.shape}"
        raise DataError(f"{files[0]} and {files[1]} have the shapes {shapes}: they do not belong together")
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64))


def spellings(part: str, what: str, dims: int) -> list[str]:
    """The usual names of such a file."""
    stems = [f"{part}-{what}-idx{dims}-ubyte", f"{part}-{what}.idx{dims}-ubyte"]
    return [f"{folder}{stem}{end}" for folder in ("", "raw/") for stem in stems for end in (".gz", "")]


def values(file: Path) -> npt.NDArray[np.uint8]:
    """The array in an idx file of bytes; DataError if the file is truncated or not an idx file."""
    try:
        content = unzip(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}; fetch it again") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != BYTES:
        raise DataError(f"{file} is not an idx file of bytes: it begins with {content[:4].hex(' ')}")
    start = 4 + 4 * content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    if len(content) - start != math.prod(shape):
        raise DataError(f"{file} should have {shape} bytes, it has {len(content) - start}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
