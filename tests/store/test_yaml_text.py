"""A YAML is measured before it is expanded, and only plain values come out."""

from __future__ import annotations

import time

import pytest

from unvanish.store.yaml_text import DEEPEST, MOST, YamlFault, parse


def levels(count, width=9):
    """A list of `width` aliases of the list before it, `count` times."""
    rows = [f"a0: &a0 [{', '.join('x' * width)}]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, count)]
    return "\n".join(rows)


def merges(count):
    rows = ["a: &m0 {x: 1, y: 2}"]
    rows += [f"k{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, count)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (levels(9), "more than 200,000 values"),
        (levels(20), "more than 200,000 values"),
        (levels(60, 2), "more than 200,000 values"),
        (merges(12), "more than 200,000 values"),
        ("a: &t '" + "x" * 90_000 + "'\nb: [" + "*t, " * 500 + "1]", "more than 200,000 values"),
        ("a: " + "[" * 200_000, "within each other"),
        ("a: " + "{b: " * 5_000, "within each other"),
        ("\n".join("  " * i + "- " for i in range(500)), "within each other"),
        ("a: &c0 [1]\n" + "\n".join(f"k{i}: &c{i} [*c{i - 1}]" for i in range(1, 300)), "within each other"),
        ("a: '" + "x" * 1_100_000 + "'", "at most 1 million"),
        ("a: " + "9" * 5_000, "a number of 5,000 digits"),
        ("a: 0x" + "f" * 90, "too large"),
        ("a: 1e400", "not a finite number"),
        ("a: .nan", "not a finite number"),
        ("a: [1, -.inf]", "not a finite number"),
        ("a: 9223372036854775808", "too large"),
        ("a: !!int seven", "no value of the kind int"),
        ("a: !!float ''", "no value of the kind float"),
        ("a: !!bool perhaps", "no value of the kind bool"),
        ("a: !!binary aGk=", "the tag !!binary is refused"),
        ("a: !!set {x, y}", "the tag !!set is refused"),
        ("a: !!python/name:os.system ''", "the tag !!python/name:os.system is refused"),
        ("a: &a {<<: *a}", "contains itself"),
        ("a: {<<: 5}", "not YAML"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: 1\n1: 2\na: 3", "'a' is given twice (first on line 1)"),
    ],
)
def test_what_would_exhaust_or_run_is_refused_in_one_line(text, told):
    begun = time.perf_counter()
    with pytest.raises(YamlFault) as error:
        parse(text)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert time.perf_counter() - begun < 5


def test_what_people_write_is_read():
    text = "base: &b {kernel: 3, out: 8}\nrow: {<<: *b, out: 16}\nother: {<<: *b}\n"
    text += "date: 2026-01-31\n0: [1e-3, None, yes]"
    assert parse(text) == {
        "base": {"kernel": 3, "out": 8},
        "row": {"kernel": 3, "out": 16},
        "other": {"kernel": 3, "out": 8},
        "date": "2026-01-31",
        0: [1e-3, None, True],
    }
    assert parse("") is None


def test_a_mapping_with_merges_may_be_used_again():
    assert parse("c: &c {x: 1}\na: {<<: &b {<<: *c, x: 2}}\nd: *b\ne: *b")["e"] == {"x": 2}


def test_a_large_honest_file_is_read():
    rows = "".join(f"- [-1, 1, Conv, [{i}, 3]]\n" for i in range(10_000))
    begun = time.perf_counter()
    assert len(parse(f"layers:\n{rows}")["layers"]) == 10_000
    assert time.perf_counter() - begun < 20 and MOST > 100_000 and DEEPEST > 20
