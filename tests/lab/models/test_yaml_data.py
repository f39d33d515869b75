"""YAML as data with lines: what is read, and what is refused and where."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unvanish.lab.models.yaml_data import SpecError, YamlTable, from_plain, parse_yaml, to_plain
from unvanish.store.yaml_text import EXPONENT

WORDS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8).filter(
    lambda word: word != "None" and not EXPONENT.fullmatch(word)  # read as people mean them, see below
)
SCALARS = st.one_of(st.integers(-999, 999), st.booleans(), st.none(), WORDS)
DATA = st.recursive(SCALARS, lambda d: st.lists(d, max_size=3) | st.dictionaries(WORDS, d, max_size=3))


@settings(deadline=None)
@given(st.dictionaries(WORDS, DATA, min_size=1, max_size=4))
def test_it_reads_what_the_safe_loader_reads(data):
    text = yaml.safe_dump(data)
    expected = yaml.safe_load(text)
    if all(isinstance(key, str) for key in _keys(expected)):
        assert to_plain(parse_yaml(text, "a.yaml")) == expected
        assert to_plain(from_plain(data)) == data


def _keys(data):
    if isinstance(data, dict):
        for key, value in data.items():
            yield key
            yield from _keys(value)
    elif isinstance(data, list):
        for value in data:
            yield from _keys(value)


def test_lines_are_remembered():
    found = parse_yaml("a: 1\n\nb:\n  c: 2\n  d: [1,\n    2]\nrows:\n  - x\n  - y: 3\n", "a.yaml")
    assert found.lines == {"a": 1, "b": 3, "rows": 7}
    assert found["b"].lines == {"c": 4, "d": 5}
    assert found["b"]["d"].lines == [5, 6]
    assert found["rows"].lines == [8, 9]
    assert found["rows"][1].at("y") == 9
    assert YamlTable({}, {}, 4).at("missing") == 4


def test_numbers_as_people_write_them():
    found = parse_yaml("a: 1e-3\nb: None\nc: '1e-3'\nd: 2.5E+2\ne: 0.5\n", "a.yaml")
    assert found == {"a": 1e-3, "b": None, "c": "1e-3", "d": 250.0, "e": 0.5}


def test_anchors_and_merges_are_data():
    found = parse_yaml("base: &b {kernel: 3, out: 8}\nrow: {<<: *b, out: 16}\n", "a.yaml")
    assert found["row"] == {"kernel": 3, "out": 16}


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("a: 1\nb: !!python/object:os.system {}\n", 2, "data, not code"),
        ("a: !!python/object/apply:os.system [echo]\n", 1, "data, not code"),
        ("a: !!python/name:os.system\n", 1, "data, not code"),
        ("a: 1\n\nb: !mine x\n", 3, "data, not code"),
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is given twice (first on line 1)"),
        ("a: [1, 2\nb: 3\n", 2, "not YAML"),
        ("- 1\n- 2\n", 1, "a model is a mapping"),
        ("", 1, "a model is a mapping"),
        ("a: &x [*x]\n", 1, "contains itself"),
        ("? [1, 2]\n: 3\n", 1, "a key must be"),
        ("a: *nowhere\n", 1, "undefined alias"),
    ],
)
def test_what_is_no_data_is_refused_with_its_line(text, line, told):
    with pytest.raises(SpecError) as error:
        parse_yaml(text, "net.yaml")
    assert error.value.line == line
    assert str(error.value).startswith(f"net.yaml:{line}: ")
    assert told in str(error.value)


def test_an_anchor_that_is_used_twice_is_one_object():
    found = parse_yaml("a: &a [1, 2]\nb: [*a, *a]\n", "a.yaml")
    assert found["b"][0] is found["b"][1] is found["a"]


def test_a_key_in_two_spellings_that_mean_one_text_is_kept_once():
    assert parse_yaml("1: a\n'1': b\n", "a.yaml") == {"1": "b"}
