"""Values as JSON can hold them; numbers that are not finite become their names."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any, depth: int = 12) -> Any:
    """A value as JSON can hold it; anything else becomes its text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist(), depth)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else nonfinite(value)
    if depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), depth - 1) for f in dataclasses.fields(value)}
    if depth and isinstance(value, Mapping):
        return {str(key): plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth - 1) for item in value]
    return str(value)


def name_value(value: Any) -> str:
    """A value as a person may have typed it, in one line of at most 80 letters."""
    if isinstance(value, (str, int, float, bool, type(None))) or type(value) in (list, tuple, dict, set):
        try:
            text = reprlib.repr(value) if isinstance(value, (list, tuple, dict, set)) else repr(value)
        except (ValueError, RecursionError):  # a number of more digits than Python prints
            return f"a very long {type(value).__name__}"
        return text if len(text) <= 80 else f"{text[:60]}... ({type(value).__name__})"
    return f"{value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def nonfinite(value: float) -> str:
    """The name of a value that is not finite: "nan", "inf" or "-inf"."""
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
