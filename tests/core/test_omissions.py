"""A reading that fails is left out and said; in strict tests it is raised."""

from __future__ import annotations

import pytest

from unvanish.core.omissions import Omissions, be_strict, describe_error


def fail() -> int:
    raise KeyError("weight\nand more")


def test_a_reading_that_fails_is_left_out_with_its_reason() -> None:
    omissions = Omissions()
    with be_strict(False):
        assert omissions.attempt("the weight", "a", fail, int) == 0
        assert omissions.attempt("the weight", "b", lambda: 3, int) == 3
        for where in "abcdef":
            omissions.attempt("the weight", where, fail, int)
    (sentence,) = omissions.sentences()
    assert sentence.startswith("the weight in a, b, c and 3 more: KeyError")


def test_what_is_said_without_an_error_is_no_fault() -> None:
    omissions = Omissions()
    omissions.note("operations", "", "they run elsewhere")
    assert omissions.sentences() == ["operations: they run elsewhere"]


def test_strict_raises() -> None:
    with be_strict(), pytest.raises(KeyError):
        Omissions().attempt("the weight", "a", fail, int)


def test_a_reason_is_one_short_line() -> None:
    text = describe_error(ValueError("x" * 1000 + "\nsecond"))
    assert "\n" not in text and len(text) < 300
    assert describe_error(ValueError()) == "ValueError"
