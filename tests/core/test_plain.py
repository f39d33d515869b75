"""Values as JSON holds them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pytest

from unvanish.core.plain import nonfinite, plain


@dataclass(frozen=True)
class Pair:
    left: Any
    right: Any = 1.0


class Level(IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("text", "text"),
        (True, True),
        (7, 7),
        (0.25, 0.25),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([[1.0, math.nan], [math.inf, 2.0]]), [[1.0, "nan"], ["inf", 2.0]]),
        ((1, (2.0, "a")), [1, [2.0, "a"]]),
        ([frozenset({5})], [[5]]),
        ({"a": {1: -math.inf}, None: ()}, {"a": {"1": "-inf"}, "None": []}),
        (Pair(Pair(math.nan), {"k": (1,)}), {"left": {"left": "nan", "right": 1.0}, "right": {"k": [1]}}),
        (1 + 2j, "(1+2j)"),
    ],
)
def test_a_value_becomes_what_json_holds(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected and type(found) is type(expected)
    assert json.loads(json.dumps(found, allow_nan=False)) == expected


def test_subclasses_of_numbers_become_numbers() -> None:
    assert type(plain(Level.HIGH)) is int and type(plain(np.float64(1.5))) is float


def test_a_class_is_no_value_of_itself() -> None:
    assert plain(Pair) == str(Pair)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: Pair(v, None)])
def test_what_is_nested_deeper_than_twelve_becomes_text(wrap: Any) -> None:
    inside, beyond = "leaf", "leaf"
    for _ in range(12):
        inside = wrap(inside)
    for _ in range(13):
        beyond = wrap(beyond)
    for value, is_text in ((inside, False), (beyond, True)):
        found = plain(value)
        for _ in range(12):
            found = found[0] if isinstance(found, list) else found.get("k", found.get("left"))
        assert isinstance(found, str) and (found == "leaf") != is_text
    assert plain([], 0) == "[]"
    assert plain(wrap("x"), 0) == str(wrap("x")) and plain(wrap("x"), 1) != str(wrap("x"))


@pytest.mark.parametrize(("value", "name"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_the_names_of_numbers_that_are_not_finite_are_read_by_float(value: float, name: str) -> None:
    assert nonfinite(value) == name
    assert float(name) == value or math.isnan(value)
