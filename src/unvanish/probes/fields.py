"""Values by name: the fields of dicts, dataclasses, named tuples, and objects with tensors as attributes."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from unvanish.probes.calls import tensors_in

OURSELVES = (Tensor, PackedSequence, nn.Module, np.ndarray, np.generic, type, str, bytes)  # no records


def read_fields(value: Any) -> dict[str, Any] | None:
    """The values of a record by name; None if it is none, or holds neither a tensor nor an array."""
    if isinstance(value, OURSELVES) or inspect.isroutine(value) or is_array(value):
        return None
    try:
        named = dict(_list_fields(value))
    except Exception:  # somebody's own `keys` or property
        return None
    return named if any(map(holds_numbers, named.values())) else None


def _list_fields(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple):
        yield from zip(getattr(value, "_fields", ()), value, strict=False)
    elif isinstance(value, list):
        return
    elif dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    elif (keys := getattr(value, "keys", None)) is not None and hasattr(type(value), "__getitem__"):
        yield from ((name, value[name]) for name in (keys() if callable(keys) else keys))
    else:
        slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
        names = [*getattr(value, "__dict__", {}), *(name for name in slots if hasattr(value, name))]
        yield from ((name, getattr(value, name)) for name in names if not name.startswith("_"))


def is_array(value: Any) -> bool:
    """Whether a value is an array of another library, whose numbers NumPy can read."""
    return not isinstance(value, (Tensor, type)) and hasattr(type(value), "__array__")


def holds_numbers(value: Any) -> bool:
    """Whether there is a tensor or an array in a value or, in containers, below it."""
    if is_array(value) or any(True for _ in tensors_in(value)):
        return True
    parts = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    )
    return any(map(holds_numbers, parts))


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor of a batch, those in the fields of a record included."""
    found = list(tensors_in(value))
    yield from found or tensors_in(read_fields(value))


def describe_value(value: Any, depth: int = 2) -> str:
    """What a batch is, in a few words: "a tuple of 3 (a tensor (8, 3), a tensor (8,), ...)"."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    name = "None" if value is None else f"a {type(value).__name__}"
    named = None if depth < 1 or isinstance(value, (str, bytes)) else read_fields(value)
    if named is not None:
        keys = list(map(str, named))
        return f"{name} with {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}"
    if isinstance(value, (tuple, list)) and depth:
        parts = [describe_value(v, depth - 1) for v in value[:3]]
        return f"{name} of {len(value)} ({', '.join(parts)}{', ...' if len(value) > 3 else ''})"
    return name
