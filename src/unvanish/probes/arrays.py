"""NumPy's arrays, and those that it can read, as tensors; batches moved to where the model is.

Notable: numbers are copied, so nothing is shared. float64, NumPy's default and seldom meant, becomes the
model's own dtype, as in programs that train on it, and it is said.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.probes.errors import CheckError
from unvanish.probes.fields import is_array, read_fields

TEXTS = "OSUMmV"  # kinds of dtypes that hold no numbers


def convert(batch: Any, model: nn.Module, notes: list[str]) -> Any:
    """The batch with tensors for its arrays, the same object if it has none; CheckError for texts."""
    some = next((p for p in model.parameters() if p.is_floating_point()), None)
    dtype = torch.get_default_dtype() if some is None else some.dtype
    device = torch.device("cpu") if some is None or some.is_meta else some.device
    said: dict[str, None] = {}

    def make(array: Any) -> Tensor:
        found = np.asarray(array)
        if found.dtype.kind in TEXTS:
            raise CheckError(
                f"the batch holds an array of {found.dtype}, not of numbers; give numbers, or step="
            )
        said["arrays of the batch were copied into tensors"] = None
        native = found.dtype.newbyteorder("=")
        made = torch.from_numpy(np.array(found, native, order="C"))
        if made.dtype is torch.float64 and dtype is not torch.float64:
            said[f"float64 of its arrays became {str(dtype).removeprefix('torch.')}, the model's dtype"] = (
                None
            )
            made = made.to(dtype)
        return made.to(device)

    found = _walk(batch, make)
    notes += said
    return found


def _walk(value: Any, make: Any, depth: int = 6) -> Any:
    """A value with what `make` gives for its arrays; itself if there is none."""
    if isinstance(value, (Tensor, str, bytes)) or not depth or value is None:
        return value
    if is_array(value):
        return make(value)
    if isinstance(value, Mapping):
        named = {k: _walk(v, make, depth - 1) for k, v in value.items()}
        return value if all(named[k] is value[k] for k in named) else named
    if isinstance(value, (tuple, list)):
        parts = [_walk(v, make, depth - 1) for v in value]
        if all(a is b for a, b in zip(parts, value, strict=True)):
            return value
        return (
            type(value)(*parts) if isinstance(getattr(value, "_fields", None), tuple) else type(value)(parts)
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _replace(value, make, depth)
    return value


def _replace(value: Any, make: Any, depth: int) -> Any:
    """A dataclass with tensors for its arrays."""
    named = read_fields(value) or {}
    changed = {k: w for k, v in named.items() if (w := _walk(v, make, depth - 1)) is not v}
    if not changed:
        return value
    found = copy.copy(value)
    for name, part in changed.items():
        object.__setattr__(found, name, part)
    return found


def move(batches: Sequence[Any], model: nn.Module) -> tuple[Sequence[Any], Sequence[str]]:
    """A loader's batches where the model is, as a training moves them, and that it was done."""
    homes = {p.device for p in model.parameters()}
    if len(homes) != 1 or (home := homes.pop()).type == "cpu":
        return batches, ()
    moved = [_send(batch, home) for batch in batches]
    return moved, (f"the loader's batches were moved to {home}, where the model is",)


def _send(value: Any, home: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(home)
    if type(value) is dict:
        return {k: _send(v, home) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [_send(v, home) for v in value]
        return (
            type(value)(*parts) if isinstance(getattr(value, "_fields", None), tuple) else type(value)(parts)
        )
    return copy.copy(value).to(home) if callable(getattr(value, "to", None)) else value
