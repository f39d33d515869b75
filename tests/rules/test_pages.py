"""The page of a rule, its rows of limits, and the readings that it shares, on modules made by hand."""

from __future__ import annotations

from types import ModuleType

import pytest

from unvanish.rules import _pages

PAGE = """A rule.

Why it harms

    ratio = 9   is no limit here

Limits

    limit = 3     nats over the steps: a twentieth
                  is left
    GONE = 1e3    a size to order it by

Remedies

None."""


def build_module(name: str, doc: str | None, *uses: ModuleType) -> ModuleType:
    module = ModuleType(f"unvanish.rules.{name}", doc)
    for used in uses:
        setattr(module, used.__name__.rpartition(".")[2], used)
    return module


DEEP = build_module("_deep", "Deep.\n\nLimits\n\nOf the deep reading:\n\n    DEEP = 7   steps are enough")
MUTE = build_module("_mute", "A reading without limits.")
NEAR = build_module(
    "_near", "Near.\n\nLimits\n\n    NEAR = 0.5   of the first\n\nRemedies\n\nNone.", DEEP, MUTE
)


def test_the_rows_of_the_limits_are_read() -> None:
    assert _pages.limits(PAGE) == {
        "limit": (3.0, "nats over the steps: a twentieth is left"),
        "GONE": (1000.0, "a size to order it by"),
    }
    assert _pages.limits("A page without the section.") == {}


def test_readings_are_those_imported_directly_or_through_another_once() -> None:
    public, foreign = build_module("public", "Limits"), ModuleType("other._private")
    rule = build_module("abc001_x", PAGE, NEAR, DEEP, public, foreign)
    assert _pages.readings(rule) == [NEAR, DEEP, MUTE]
    assert _pages.readings(MUTE) == []


def test_the_limits_of_the_readings_come_after_the_rule_s_own() -> None:
    text = _pages.compose(build_module("abc001_x", PAGE, NEAR))
    assert list(_pages.limits(text)) == ["limit", "GONE", "NEAR", "DEEP"]
    before, after = PAGE.split("\n\nRemedies")
    assert text.startswith(before + "\n\n    NEAR = 0.5   of the first\n\nOf the deep reading:")
    assert text.endswith("are enough\n\nRemedies" + after)
    assert _pages.compose(build_module("abc001_x", PAGE)) == PAGE


@pytest.mark.parametrize("doc", [None, "A page without the section."])
def test_a_page_without_limits_stays_as_it_is(doc: str | None) -> None:
    assert _pages.compose(build_module("abc001_x", doc, NEAR)) == (doc or "")
