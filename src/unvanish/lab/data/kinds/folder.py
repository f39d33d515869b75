"""Images in a folder for each class: `train/<class>/*.jpg` and `val/<class>/*.jpg` (or `valid`, `test`).

The largest square in the middle of each image is scaled to `imgsz`; without it, images that are all alike and
at most 256 pixels keep their size, others get 224. Where there is no validation folder, `held_out` of every
class is taken from the training images, always the same ones. `archive` names a tar or zip file with these
folders. Training images are shifted by up to `crop` pixels (an eighth of their size) and mirrored, unless
`flip` is false.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unvanish.lab.data.content import Content, Source, finished
from unvanish.lab.data.part import Indices, Tensors, split
from unvanish.lab.data.pictures import BROKEN, Squares, fits, listed
from unvanish.lab.data.places import unpacked
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
    """The folders of the training and the validation images, the latter None where there is none."""
    train = source.spec.parts.get("train") or ("train",)
    val = source.spec.parts.get("val") or VALIDATION
    if archive and source.look(*train) is None:
        packed = unpacked(source.need(archive))
        inner = next((p.parent for p in sorted(packed.rglob(Path(train[0]).name)) if p.is_dir()), packed)
        chosen = [next((inner / n for n in names if (inner / n).is_dir()), None) for names in (train, val)]
        if chosen[0] is None:
            raise DataError(f"{archive} holds no folder {train[0]!r}")
        return chosen[0], chosen[1]
    explicit = "val" in source.spec.parts
    return source.need(*train), source.need(*val) if explicit else source.look(*val)


def of_folders(
    source: Source, train: Path, val: Path | None, channels: int, crop: int, flip: bool, held_out: float = 0.1
) -> Content:
    """The images of two folders of classes; where the second is None, some of the first are held out."""
    names = sorted(f.name for f in train.iterdir() if f.is_dir() and not f.name.startswith("."))
    if sorted(source.spec.names) == names:
        names = list(source.spec.names)  # the YAML's order counts
    files, labels = found(source, train, names)
    if not files:  # before anything is decoded
        raise DataError(f"{train} holds no images; `<class>/*.jpg` is expected below it. {source.problems}")
    if val is None:
        held, kept = split(labels, held_out)
        others, their = [files[i] for i in held], labels[held]
        files, labels = [files[i] for i in kept], labels[kept]
    else:
        others, their = found(source, val, names)
    size = source.imgsz or native(files)
    first = held_or_not(source, Squares(files, labels, size, channels))
    second = held_or_not(source, Squares(others, their, size, channels))
    shift = size // 8 if crop < 0 else crop
    return finished(first, second, sample_of(first), names, shift, flip)


def found(source: Source, folder: Path, names: Sequence[str]) -> tuple[list[Path], Indices]:
    """The image files of every class and their classes; unknown and empty classes are noted."""
    for other in sorted(f for f in folder.iterdir() if f.is_dir() and f.name not in names):
        if not other.name.startswith("."):
            source.problems.add(other, 0, "unknown class", f"{other.name!r} is no class in training")
    paths, labels = [], []
    for index, name in enumerate(names):
        inside = listed(folder / name)
        if not inside:
            source.problems.add(folder / name, 0, "empty class", "no images in this folder")
        paths += inside
        labels += [index] * len(inside)
    return paths, np.array(labels, np.int64)


def native(paths: Sequence[Path]) -> int:
    """The side of images that are all square and alike and at most 256 pixels, else 224; of some of them."""
    from PIL import Image

    seen = set()
    for path in paths[:: len(paths) // 50 + 1]:
        with suppress(*BROKEN), Image.open(path) as image:
            seen.add(image.size)
    sides = {side for size in seen for side in size}
    return sides.pop() if len(sides) == 1 and max(sides) <= 256 else 224


def held_or_not(source: Source, part: Squares) -> Squares | Tensors:
    """The readable images in memory where they are small or the caller wants it, else on disk."""
    if fits(len(part), part.channels, part.size, source.cache, source.problems):
        return part.held(source.problems)
    return part.sound(source.problems)


def sample_of(part: Squares | Tensors, most: int = 256) -> Tensor:
    """Images for statistics, spread over a part."""
    if isinstance(part, Tensors):
        return part.x
    return torch.stack([part.read(path) for path in part.paths[:: len(part) // most + 1]])
