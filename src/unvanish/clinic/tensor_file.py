"""`.pt` files read as data: tensors and plain values only, no larger in memory than on the disk.

Notable:
- `weights_only` runs no code; what it lets through is measured here: archives that unpack to more than they
  are, tensors that show one number a billion times, lists that hold each other.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unvanish.core.bounds import find_fault

SPARE = 1_000_000  # bytes by which the content of an archive may exceed the file


class TensorFileError(ValueError):
    """A file that is no plain tensors; the text says why, without its name. `code`: it could run some."""

    def __init__(self, text: str, code: bool = False) -> None:
        super().__init__(text)
        self.code = code


def read_tensors(path: Path) -> Any:
    """The tensors and plain values of a file of torch.save; TensorFileError says why it is not read."""
    if not path.is_file():
        raise TensorFileError("there is no such file, or it is no regular file")
    try:
        _refuse_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read raises
            content = torch.load(path, map_location="cpu", weights_only=True)
    except TensorFileError:
        raise
    except pickle.UnpicklingError as error:
        raise TensorFileError("it holds more than tensors and is not opened", code=True) from error
    except (Exception, RecursionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TensorFileError(f"torch.save did not write it, or it is damaged ({first[:120]})") from error
    if fault := find_fault(content):
        raise TensorFileError(fault)
    for tensor in list_tensors(content):
        _refuse_tensor(tensor)
    return content


def open_archive(path: Path) -> zipfile.ZipFile:
    """The zip archive that torch.save wrote; TensorFileError for another form or one that unpacks to more."""
    if not zipfile.is_zipfile(path):
        raise TensorFileError(
            "it is no archive as torch.save writes since 1.6: an older file, a damaged one, or no weights"
        )
    _refuse_archive(path)
    return zipfile.ZipFile(path)


def list_tensors(content: Any) -> Iterator[Tensor]:
    """The tensors in plain values."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from list_tensors(value)
    elif isinstance(content, list | tuple | set | frozenset):
        for value in content:
            yield from list_tensors(value)


def _refuse_archive(path: Path) -> None:
    """TensorFileError for a zip archive that says it unpacks to more bytes than it has."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        whole, size = sum(info.file_size for info in archive.infolist()), path.stat().st_size
    if whole > size + SPARE:
        raise TensorFileError(f"its {size:,} bytes unpack to {whole:,}; torch.save does not compress")


def _refuse_tensor(tensor: Tensor) -> None:
    """TensorFileError for a tensor that has more numbers than its memory."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        raise TensorFileError(f"it holds a tensor of the layout {tensor.layout}, which is not read")
    if (
        tensor.device.type == "meta"
        or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
    ):
        shape = tuple(tensor.shape)
        raise TensorFileError(f"a tensor {shape} has more numbers than memory; save its contiguous()")
