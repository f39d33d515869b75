"""What a weights file says about itself, checked part by part before anything is built from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from unvanish.lab.models.spec import FACTS
from unvanish.lab.tasks import tasks

LARGEST = 10_000_000  # a fact
SIDE = 65_536  # pixels of an image's side
INPUTS = ("image", "letterbox", "text", "sequence")


def find_fault(about: Any) -> str:
    """What is wrong with a description, in one sentence, or an empty text."""
    if not isinstance(about, Mapping):
        return f"its description must be a table, it is {_name(about)}"
    if about.get("spec") is None:
        return (
            "" if "state" not in about or isinstance(about["state"], Mapping) else "its state must be a table"
        )
    for key, (fits, wanted) in PARTS.items():
        value = about.get(key)
        if not (value is None and key in OPTIONAL) and not fits(value):
            return f"its {key} must be {wanted}, it is {_name(value)}"
    preparation = about.get("preparation") or {}
    return _find_fault_of_preparation(preparation, about["facts"]) if preparation else ""


def _find_fault_of_preparation(preparation: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """What is wrong with the preparation of raw data for a network of these facts."""
    kind = preparation.get("input")
    if kind not in INPUTS:
        return f"its preparation is for {_name(kind)}; there are {', '.join(INPUTS)}"
    if kind == "text":
        return _find_fault_of_text(preparation)
    wanted = {"image": ("channels", "size"), "letterbox": ("classes", "size"), "sequence": ("features",)}[
        kind
    ]
    for key in wanted:
        if not is_count(preparation.get(key), SIDE if key == "size" else LARGEST):
            return f"its preparation must give {key}, a whole number; it is {_name(preparation.get(key))}"
        if facts.get(key) not in (None, preparation[key]):
            return f"its preparation has {key} {preparation[key]}, its facts {_name(facts.get(key))}"
    if kind == "image":
        channels = preparation["channels"]
        if channels not in (1, 3):
            return f"its preparation has {channels} channels; images have 1 or 3"
        for key, least in (("mean", -math.inf), ("std", 0.0)):
            values: Any = preparation.get(key)
            if not _are(values, is_number) or len(values) != channels or min(values) <= least:
                return f"its preparation must give {key}, a number for each channel"
    return ""


def _find_fault_of_text(preparation: Mapping[str, Any]) -> str:
    """What is wrong with vocabularies and length."""
    for key in ("vocabulary", "target_vocabulary"):
        state = preparation.get(key)
        if state is None and key == "target_vocabulary":
            continue
        if not isinstance(state, Mapping):
            return f"its {key} must be a table, it is {_name(state)}"
        if state.get("sort") == "pairs":
            fits = isinstance(state.get("tokenizer"), Mapping)
        else:
            fits = state.get("sort") in ("characters", "words") and _are(state.get("entries"), is_text)
        if not fits:
            return f"its {key} is damaged"
    length = preparation.get("length")
    if length is not None and (not isinstance(length, int) or not 0 <= length <= LARGEST):
        return f"its length must be a whole number, it is {_name(length)}"
    return ""


def is_text(value: Any) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


def is_count(value: Any, most: int = LARGEST) -> bool:
    """Whether a value is a whole number from 1 to `most`."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are(values: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(values, list | tuple) and all(map(fits, values))


def _are_facts(value: Any) -> bool:
    """Whether a value is a table of facts: whole numbers, a size also two."""
    if not isinstance(value, Mapping):
        return False
    sides = value.get("size")
    pair = isinstance(sides, list | tuple) and len(sides) == 2 and _are(sides, is_count)
    return all(k in FACTS and (is_count(v) or (k == "size" and pair)) for k, v in value.items())


def _name(value: Any) -> str:
    """A value in few words."""
    text = repr(value)
    return f"{text if len(text) < 40 else text[:37] + '...'} ({type(value).__name__})"


OPTIONAL = ("names", "preparation", "name", "task", "data")
PARTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "spec": (lambda v: isinstance(v, Mapping), "the table of a network"),
    "facts": (_are_facts, f"a table of whole numbers, of {', '.join(FACTS)}"),
    "task": (lambda v: is_text(v) and v in tasks(), f"one of {', '.join(tasks())}"),
    "names": (lambda v: _are(v, is_text), "a list of words"),
    "preparation": (lambda v: isinstance(v, Mapping), "a table"),
    "name": (is_text, "a word"),
    "data": (is_text, "a word"),
}
