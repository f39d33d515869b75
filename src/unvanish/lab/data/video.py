"""Frames of a video, one by one, with OpenCV, PyAV or imageio, the first that is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unvanish.lab.data.problems import DataError

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts")


def is_video(path: Path) -> bool:
    """Whether a file's name is that of a video."""
    return path.suffix.lower() in SUFFIXES


def frames(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield (origin, uint8 (3, H, W)) for every frame, counted from 1; nothing is read ahead.

    DataError if no such library is installed, or if the video cannot be read.
    """
    library, read = _reader(path)
    number = 0
    try:
        for number, frame in enumerate(read(library, path), 1):
            yield f"{path}:{number}", torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
    except Exception as error:
        raise DataError(f"{path} cannot be read as a video, after {number} frames: {error}") from error
    if not number:
        raise DataError(f"{path} cannot be read as a video: {library.__name__} found no frame in it")


def _reader(path: Path) -> tuple[Any, Callable[[Any, Path], Iterator[Any]]]:
    """The first library that is installed, and its reader of frames."""
    for name, read in READERS.items():
        try:
            return importlib.import_module(name), read
        except ImportError:
            continue
    raise DataError(
        f"{path} is a video, and no library that reads one is installed: pip install opencv-python-headless,"
        " or av, or imageio[ffmpeg]; or give a folder of its frames as images"
    )


def _opencv(library: Any, path: Path) -> Iterator[Any]:
    capture = library.VideoCapture(str(path))
    try:
        while (answer := capture.read())[0]:
            yield answer[1][..., ::-1]  # OpenCV's order is blue, green, red
    finally:
        capture.release()


def _av(library: Any, path: Path) -> Iterator[Any]:
    with library.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _imageio(library: Any, path: Path) -> Iterator[Any]:
    yield from library.imiter(path)


READERS: dict[str, Callable[[Any, Path], Iterator[Any]]] = {
    "cv2": _opencv,
    "av": _av,
    "imageio.v3": _imageio,
}
