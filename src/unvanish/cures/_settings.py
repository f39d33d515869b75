"""The settings of a cure, as a prescription may give them: of the kind of their defaults, and bounded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

WORD = re.compile(r"[A-Za-z][\w-]{0,60}", re.ASCII)
WHOLE = 1_000_000_000  # whole numbers lie within this
NUMBER = 1e30  # numbers too
NAMES = 100_000  # of a list


def find_setting_fault(value: Any, default: Any) -> str:
    """What a setting with this default must be, if the value is not; an empty text if it fits."""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        return "" if _is_whole(value) else "a whole number"
    if isinstance(default, float):
        return "" if _is_number(value) else "a finite number"
    if isinstance(default, str):
        return "" if _is_word(value) else "a word"
    if isinstance(default, list | tuple):
        return "" if _are_names(value) else "a list of names"
    return "" if _is_plain(value) else "plain numbers and words"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= WHOLE


def _is_number(value: Any) -> bool:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return fits and math.isfinite(value) and abs(value) <= NUMBER


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and WORD.fullmatch(value) is not None


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) <= NAMES and all(isinstance(v, str) for v in value)


def _is_plain(value: Any) -> bool:
    """Whether a value is nothing, a truth, a number, a word, or a flat list or table of these."""
    if isinstance(value, list | tuple):
        return len(value) <= NAMES and all(_is_single(v) for v in value)
    if isinstance(value, Mapping):
        return all(_is_word(k) and _is_single(v) for k, v in value.items())
    return _is_single(value)


def _is_single(value: Any) -> bool:
    return value is None or isinstance(value, bool) or _is_number(value) or _is_word(value)
