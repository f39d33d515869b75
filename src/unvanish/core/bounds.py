"""How much a loaded value holds, counted before anybody walks through it: what is shared counts each time.

Notable: a list may hold itself twice, and that list twice again; thirty such lists fit into a hundred bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MOST = 5_000_000  # values, what is shared written out
DEEPEST = 100  # lists and mappings within each other
LETTERS = 100_000_000  # of a JSON text


def find_fault(value: Any, most: int = MOST, deepest: int = DEEPEST) -> str:
    """Why plain values are too deep or too many to be walked through, or an empty text."""
    try:
        count, _ = _measure(value, {}, deepest)
    except RecursionError as error:
        return str(error)
    return f"it holds more than {most:,} values" if count > most else ""


def parse_json(text: str | bytes, most: int = MOST, deepest: int = DEEPEST) -> Any:
    """The values of a JSON text; ValueError in one line if it is not JSON, too deep or too large."""
    if len(text) > LETTERS:
        raise ValueError(f"it is longer than {LETTERS:,} letters")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"more than {deepest} lists and mappings lie within each other") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({str(error)[:100]})") from error
    if fault := find_fault(value, most, deepest):
        raise ValueError(fault)
    return value


def _measure(value: Any, known: dict[int, tuple[int, int] | None], left: int) -> tuple[int, int]:
    """Values in a value, and its depth; RecursionError if it is deeper than `left` or contains itself."""
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return 1, 0
    if left <= 0:
        raise RecursionError(f"more than {DEEPEST} lists and mappings lie within each other")
    if id(value) not in known:
        known[id(value)] = None
        inner = list(value.values()) if isinstance(value, Mapping) else list(value)
        parts = [_measure(entry, known, left - 1) for entry in inner]
        count, depth = 1 + sum(n for n, _ in parts), 1 + max((d for _, d in parts), default=0)
        known[id(value)] = count, depth
    found = known[id(value)]
    if found is None:
        raise RecursionError("it contains itself")
    if found[1] > left:
        raise RecursionError(f"more than {DEEPEST} lists and mappings lie within each other")
    return found
