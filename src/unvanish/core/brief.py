"""How nouns show themselves in a session: `repr` in at most one screen, however much they hold.

Notable:
- A noun on one line if it fits, else one field a line, each cut to the width: the number of fields bounds it.
- Fields at their defaults are left out; of what a noun holds only the first names are shown, and how many
  more there are. Models, losses and arrays are named by their class, never printed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import PurePath
from typing import Any

WIDTH, ITEMS, LETTERS, DEEPEST = 110, 3, 72, 5  # of a line; shown of a list, of a text; levels


class Brief:
    """A dataclass whose `repr` fits a screen; it is declared with `repr=False`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return write_brief(self)


def write_brief(noun: Brief) -> str:
    """Its class and its fields, on one line or one field a line."""
    parts = [f"{f.name}={_shorten(value, 1)}" for f, value in _list_fields(noun)]
    line = f"{type(noun).__name__}({', '.join(parts)})"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{type(noun).__name__}(", *(_cut(f"    {part},", WIDTH) for part in parts), ")"])


def _list_fields(noun: Brief) -> list[tuple[Field[Any], Any]]:
    pairs = [(f, getattr(noun, f.name)) for f in fields(noun) if f.repr]  # type: ignore[arg-type]
    return [(f, value) for f, value in pairs if not _is_default(f, value)]


def _is_default(field: Field[Any], value: Any) -> bool:
    plain = field.default if field.default is not MISSING else None
    if field.default_factory is not MISSING or (isinstance(plain, tuple) and not plain):
        return isinstance(value, (tuple, list, dict)) and not value
    if field.default is MISSING or type(value) is not type(plain):
        return False
    if isinstance(value, float) and math.isnan(value):
        return math.isnan(field.default)
    return bool(value == plain) if isinstance(value, (str, int, float, type(None))) else False


def _shorten(value: Any, level: int) -> str:
    """A value in a few words; nouns inside nouns by their first two fields."""
    if level > DEEPEST:
        return "..."
    if isinstance(value, Brief):
        return _shorten_noun(value, level)
    if isinstance(value, str):
        return repr(_cut(value, LETTERS))
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 10**20 else "..."  # a larger one may not be writable at all
    if isinstance(value, PurePath):
        return repr(_cut(str(value), LETTERS))
    if isinstance(value, Mapping):
        pairs = (f"{_shorten(k, level + 1)}: {_shorten(v, level + 1)}" for k, v in value.items())
        return f"{{{_join(pairs, len(value), level)}}}"
    if isinstance(value, (tuple, list)):
        inside = _join((_shorten(item, level + 1) for item in value), len(value), level)
        ends = "()" if isinstance(value, tuple) else "[]"
        return f"{ends[0]}{inside}{',' if len(value) == 1 and ends == '()' else ''}{ends[1]}"
    return f"<{type(value).__name__}{_tell_shape(value)}>"


def _shorten_noun(noun: Brief, level: int) -> str:
    if level > 2:
        return f"{type(noun).__name__}(...)"
    pairs = _list_fields(noun)
    parts = [f"{f.name}={_shorten(value, level + 1)}" for f, value in pairs[:2]]
    return f"{type(noun).__name__}({', '.join([*parts, *(['...'] if len(pairs) > 2 else [])])})"


def _join(items: Iterable[str], count: int, level: int) -> str:
    """The first few, and how many more there are; deep inside only how many."""
    if level > 2 and count > 1:
        return f"... {count}"
    shown = [item for item, _ in zip(items, range(ITEMS), strict=False)]
    return ", ".join([*shown, *([f"... {count - ITEMS} more"] if count > ITEMS else [])])


def _tell_shape(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f" of shape {tuple(shape)}" if isinstance(shape, tuple) and len(shape) <= 8 else ""


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 4].rstrip()} ..."
