"""CIFAR-10 and CIFAR-100: 32x32 colour images, 50,000 for training and 10,000 for testing (Krizhevsky 2009).

Read from the binary version (a label or two and 3,072 bytes an image), from the Python version, or from image
folders `train/<class>/*` and `test/<class>/*`, each unpacked or as an archive. The Python version is a
pickle, which could run code when loaded: it is read by an unpickler that accepts only arrays, dictionaries
and bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unvanish.core.bounds import find_fault
from unvanish.lab.data.content import Content, Source, tensor_content
from unvanish.lab.data.kinds.folder import of_folders
from unvanish.lab.data.limits import find_below
from unvanish.lab.data.places import is_archive, unpack
from unvanish.lab.data.problems import DataError

TASKS = ("classify",)
PIXELS = 3 * 32 * 32
LARGEST = 400_000_000  # bytes of a pickle
HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}
FORMS = {
    10: ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    100: ("cifar-100-binary", "cifar-100-binary.tar.gz", "cifar-100-python", "cifar-100-python.tar.gz"),
}


def read(
    source: Source, *, classes: int = 10, crop: int = 4, flip: bool = True, archive: str = ""
) -> Content:
    """CIFAR with 10 or (fine) 100 classes, from the first form that exists."""
    if classes not in FORMS:
        raise DataError(f"{source.spec.name}: classes must be 10 or 100, it is {classes}")
    forms = FORMS[classes]
    images = ((archive,) if archive else ()) + ("train",)
    place = source.look(*forms, *images) or source.need(*forms)
    folder = unpack(place) if is_archive(place) else place
    if place.name not in forms:
        train = folder if folder.name == "train" else next(find_below(folder, "train"), folder / "train")
        return of_folders(source, train, train.parent / "test", 3, crop, flip)
    train_files, test_files, load = files(folder, classes)
    names = source.spec.names or tuple(map(str, range(classes)))
    return tensor_content(source, load(train_files, classes), load(test_files, classes), names, crop, flip)


def files(folder: Path, classes: int) -> tuple[list[Path], list[Path], Any]:
    """The training files and the test files below a folder, and the function that reads them."""
    if classes == 10:
        train, test = [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]
    else:
        train, test = ["train"], ["test"]
    for end, load in ((".bin", read_binary), ("", read_pickles)):
        found = [[p for p in folder.rglob(name + end) if p.is_file()][:1] for name in train + test]
        if all(found):
            paths = [p[0] for p in found]
            return paths[: len(train)], paths[len(train) :], load
    raise DataError(f"{folder} lacks some of {', '.join(train + test)} (.bin); fetch the archive again")


def read_binary(paths: Sequence[Path], classes: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) and labels of files of the binary version; the fine label is the last one."""
    head = 1 if classes == 10 else 2
    whole = b"".join(path.read_bytes() for path in paths)
    if not whole or len(whole) % (head + PIXELS):
        size = f"{len(whole)} bytes"
        raise DataError(f"{paths[0]} is truncated or not a binary CIFAR-{classes}: {size}; fetch it again")
    rows = np.frombuffer(whole, np.uint8).reshape(-1, head + PIXELS)
    return tensors(rows[:, head:], rows[:, head - 1])


def read_pickles(paths: Sequence[Path], classes: int) -> tuple[Tensor, Tensor]:
    """Images and labels of files of the Python version, read without running any code."""
    batches = [unpickle(path) for path in paths]
    key = b"labels" if classes == 10 else b"fine_labels"
    try:
        pixels = np.concatenate([np.asarray(b[b"data"], np.uint8) for b in batches])
        return tensors(pixels, np.concatenate([np.asarray(b[key]) for b in batches]))
    except Exception as error:
        raise DataError(f"{paths[0]} is not a Python CIFAR-{classes} batch: {error!r}"[:300]) from error


def tensors(pixels: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Rows of 3,072 bytes as images, and their labels."""
    images = torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy())
    return images, torch.from_numpy(labels.astype(np.int64))


class Harmless(pickle.Unpickler):
    """An unpickler that builds arrays and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it requires {module}.{name}, which no CIFAR batch needs")
        return super().find_class(module, name)


def unpickle(path: Path) -> Any:
    """The content of a pickle of arrays; DataError if it requires anything else."""
    try:
        if path.stat().st_size > LARGEST:
            raise pickle.UnpicklingError(f"it has more than {LARGEST:,} bytes")
        found = Harmless(BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a pickle may fail in any way
        raise DataError(f"{path} was not loaded: {str(error)[:200]}") from error
    if fault := find_fault(found):
        raise DataError(f"{path} was not loaded: {fault}")
    return found
