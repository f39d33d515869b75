"""From raw samples to inputs, prepared like the training data by a checkpoint's `preparation`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unvanish.lab.data.augment import Pixels, resize
from unvanish.lab.data.encoding import read_file
from unvanish.lab.data.letterbox import letterbox_image
from unvanish.lab.data.problems import DataError, Problems
from unvanish.lab.data.sources import read_pictures
from unvanish.lab.data.vocabulary import restore_vocabulary
from unvanish.lab.tokens import END, UNKNOWN


def inputs(preparation: Mapping[str, Any], source: Any, rgb: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Yield (origin, x) for every sample of a source, x a batch of one.

    Images: a file, a folder, a glob, a video, an address (http), a PIL image, a NumPy array (H, W) or
    (H, W, C) with blue, green, red as OpenCV has it, or red, green, blue if `rgb`, a tensor (C, H, W), either
    also in a batch, or a list or an iterator of these. Texts: a text, a .txt file (a sample a line), a list.
    Sequences: an array or tensor (T, F).
    """
    if preparation["input"] in ("image", "letterbox"):
        yield from _images(preparation, source, rgb)
    else:
        yield from (_texts if preparation["input"] == "text" else _sequences)(preparation, source)


def decode(preparation: Mapping[str, Any], ids: Iterable[int]) -> str:
    """The text of ids, by the vocabulary of targets if there are two."""
    state = preparation.get("target_vocabulary") or preparation["vocabulary"]
    return restore_vocabulary(state).decode(ids)


def _images(preparation: Mapping[str, Any], source: Any, rgb: bool) -> Iterator[tuple[str, Tensor]]:
    for origin, _, x in read_views(preparation, source, rgb):
        yield origin, x


def read_views(
    preparation: Mapping[str, Any], source: Any, rgb: bool = False
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (origin, image, x) for every image of a source: uint8 (C, H, W), and prepared (1, C, S, S)."""
    size = int(preparation["size"])
    if preparation["input"] == "letterbox":
        yield from read_scenes(source, size, rgb)
        return
    pixels = Pixels(tuple(preparation["mean"]), tuple(preparation["std"]))
    for origin, image in read_pictures(source, int(preparation["channels"]), rgb):
        yield origin, image, pixels.normalise(resize(central_square(image)[None], size))


def read_scenes(source: Any, size: int, rgb: bool = False) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (origin, image, x) for every image of a source: uint8 (3, H, W), and letterboxed (1, 3, S, S)."""
    from PIL.Image import fromarray

    for origin, image in read_pictures(source, 3, rgb):
        boxed = letterbox_image(fromarray(image.permute(1, 2, 0).numpy()), size)
        yield origin, image, boxed[None].float().mul_(1 / 255)


def central_square(image: Tensor) -> Tensor:
    """The largest central square of an image (C, H, W)."""
    rows, columns = image.shape[-2:]
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    return image[:, top : top + side, left : left + side]


def _texts(preparation: Mapping[str, Any], source: Any) -> Iterator[tuple[str, Tensor]]:
    vocabulary = restore_vocabulary(preparation["vocabulary"])
    for origin, text in _lines(source):
        ids = vocabulary.encode(text)[: preparation.get("length") or None] or [UNKNOWN]
        yield origin, torch.tensor([[*ids, END] if preparation.get("ends") else ids])


def _lines(source: Any) -> Iterator[tuple[str, str]]:
    """Yield (origin, text) for every text of a source."""
    if isinstance(source, list | tuple):
        for entry in source:
            yield from _lines(entry)
    elif isinstance(source, Path) or (str(source).endswith(".txt") and Path(source).is_file()):
        lines = read_file(Path(source), "", Problems()).split("\n")
        yield from ((f"{source}:{i}", line) for i, line in enumerate(lines, 1) if line.strip())
    else:
        yield str(source), str(source)


def _sequences(preparation: Mapping[str, Any], source: Any) -> Iterator[tuple[str, Tensor]]:
    entries = source if isinstance(source, list | tuple) else [source]
    for index, entry in enumerate(entries):
        x = torch.as_tensor(entry, dtype=torch.float32)
        if x.ndim == 1:
            x = x[:, None]
        if x.ndim != 2 or x.shape[1] != preparation["features"]:
            wanted = preparation["features"]
            raise DataError(f"a sequence must have the shape (T, {wanted}), it is {tuple(x.shape)}")
        yield f"sequence {index}", x[None]
