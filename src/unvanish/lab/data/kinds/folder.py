"""Images, one folder per class: `train/<class>/*.jpg` and `val/<class>/*.jpg` (or `valid`, `test`).

The largest central square of each image is scaled to `imgsz`; without `imgsz`, images that all have the same
size of at most 256 pixels keep it, others get 224. If there is no validation folder, the share `held_out` of
every class is taken from the training images, always the same ones. `archive` names a tar or zip file with
these folders. Training images are shifted by up to `crop` pixels (an eighth of their size) and mirrored,
unless `flip` is false.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unvanish.lab.data.content import Content, Source, image_content
from unvanish.lab.data.limits import find_below, open_picture
from unvanish.lab.data.part import Indices, Tensors, hold_out
from unvanish.lab.data.pictures import BROKEN, Squares, fits_in_memory, list_images
from unvanish.lab.data.places import unpack
from unvanish.lab.data.problems import DataError

TASKS = ("classify",)
VALIDATION = ("val", "valid", "validation", "test")


def read(
    source: Source,
    *,
    channels: int = 3,
    crop: int = -1,
    flip: bool = True,
    held_out: float = 0.1,
    archive: str = "",
) -> Content:
    """The images below the training and validation folders."""
    train, val = folders(source, archive)
    return of_folders(source, train, val, channels, crop, flip, held_out)


def folders(source: Source, archive: str) -> tuple[Path, Path | None]:
    """The folders of the training and the validation images, the latter None if there is none."""
    train = source.spec.parts.get("train") or ("train",)
    val = source.spec.parts.get("val") or VALIDATION
    if archive and source.look(*train) is None:
        packed = unpack(source.need(archive))
        inner = next((p.parent for p in find_below(packed, Path(train[0]).name) if p.is_dir()), packed)
        chosen = [next((inner / n for n in names if (inner / n).is_dir()), None) for names in (train, val)]
        if chosen[0] is None:
            raise DataError(f"{archive} contains no folder {train[0]!r}")
        return chosen[0], chosen[1]
    explicit = "val" in source.spec.parts
    return source.need(*train), source.need(*val) if explicit else source.look(*val)


def of_folders(
    source: Source, train: Path, val: Path | None, channels: int, crop: int, flip: bool, held_out: float = 0.1
) -> Content:
    """The images of two folders of classes; if the second is None, some of the first are held out."""
    names = sorted(f.name for f in train.iterdir() if f.is_dir() and not f.name.startswith("."))
    if sorted(source.spec.names) == names:
        names = list(source.spec.names)  # the YAML's order counts
    names = list(source.order_names(names))
    files, labels = find_images(source, train, names)
    if not files:  # before anything is decoded
        raise DataError(
            f"{train} contains no images; `<class>/*.jpg` is expected below it. {source.problems}"
        )
    if val is None:
        held, kept = hold_out(labels, held_out)
        others, their = [files[i] for i in held], labels[held]
        files, labels = [files[i] for i in kept], labels[kept]
    else:
        others, their = find_images(source, val, names)
    size = source.imgsz or native_size(files)
    first = load_or_keep(source, Squares(files, labels, size, channels))
    second = load_or_keep(source, Squares(others, their, size, channels))
    shift = size // 8 if crop < 0 else crop
    return image_content(source, first, second, sample_of(first), names, shift, flip)


def find_images(source: Source, folder: Path, names: Sequence[str]) -> tuple[list[Path], Indices]:
    """The image files of every class and their classes; unknown and empty classes are reported."""
    for other in sorted(f for f in folder.iterdir() if f.is_dir() and f.name not in names):
        if not other.name.startswith("."):
            source.problems.add(
                other, 0, "unknown class", f"{other.name!r} is not a class of the training part"
            )
    paths, labels = [], []
    for index, name in enumerate(names):
        inside = list_images(folder / name)
        if not inside:
            source.problems.add(folder / name, 0, "empty class", "no images in this folder")
        paths += inside
        labels += [index] * len(inside)
    return paths, np.array(labels, np.int64)


def native_size(paths: Sequence[Path]) -> int:
    """The side of images that are all equal squares of at most 256 pixels, else 224; from a sample."""
    seen = set()
    for path in paths[:: len(paths) // 50 + 1]:
        with suppress(*BROKEN), open_picture(path) as image:
            seen.add(image.size)
    sides = {side for size in seen for side in size}
    return sides.pop() if len(sides) == 1 and max(sides) <= 256 else 224


def load_or_keep(source: Source, part: Squares) -> Squares | Tensors:
    """The readable images in memory if they are small or the caller wants it, else on disk."""
    if fits_in_memory(len(part), part.channels, part.size, source.cache, source.problems):
        return part.load(source.problems)
    return part.readable(source.problems)


def sample_of(part: Squares | Tensors, most: int = 256) -> Tensor:
    """Images for statistics, spread over a part."""
    if isinstance(part, Tensors):
        return part.x
    return torch.stack([part.read(path) for path in part.paths[:: len(part) // most + 1]])
