"""Tables as people's programs write them: read and said, or refused in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from unvanish.lab.data import DataError, open_data
from unvanish.lab.data.part import hold_out, split
from unvanish.lab.data.problems import Problems
from unvanish.lab.data.table_rows import read_table

PLAIN = [("a fine film", "pos"), ("a dull film", "neg")]


def rows(path: Path, content: bytes, encoding: str = "") -> tuple[list[tuple[str, str]], list[str]]:
    """The texts and labels of a table, and the sorts of what is told."""
    path.write_bytes(content)
    problems = Problems()
    found = [
        (r["text"], r["label"])
        for _, r in read_table(path, ("text", "label"), encoding, problems)
        if len(r) == 2
    ]
    return found, [p.sort for p in problems]


BODY = "a fine film,pos\na dull film,neg\n"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", f"text,label\n{BODY}".encode("utf-8-sig"), []),
        ("a.CSV", f"text,label\n{BODY}".encode(), []),
        ("a.csv", f"text,label\n{BODY}".replace("\n", "\r\n").encode(), []),
        ("a.csv", f"text,label\n{BODY}".replace("\n", "\r").encode(), []),
        ("a.csv", f"text,label\n{BODY}".encode("utf-16"), ["other encoding"]),
        ("a.csv", f"text,label\n{BODY}".replace(",", ";").encode(), []),
        ("a.csv", f"text,label\n{BODY}".replace(",", "\t").encode(), []),
        ("a.tsv", f"text,label\n{BODY}".replace(",", "\t").encode(), []),
        ("a.csv", f"Text , LABEL\n{BODY}".encode(), []),
        ("a.csv", f"review,sentiment\n{BODY}".encode(), ["other column", "other column"]),
        ("a.csv", b"id,text,label\n1,a fine film,pos\n\n2,a dull film,neg\n", []),
        ("a.csv", b'text,label\n"a fine film",pos\n"a dull film",neg', []),
        ("a.jsonl", b'{"text":"a fine film","label":"pos"}\n{"text":"a dull film","label":"neg"}', []),
        ("a.JSONL", b'\xef\xbb\xbf{"Review":"a fine film","class":"pos"}\n'
         b'{"Review":"a dull film","class":"neg"}', ["other column", "other column"]),
    ],
)  # fmt: skip
def test_any_way_to_write_the_same_table(tmp_path, name, content, told):
    assert rows(tmp_path / name, content) == (PLAIN, told)


def test_letters_that_only_python_takes_for_line_ends(tmp_path):
    text = "one\u2028two\u2029three\x0bfour\x0cfive\x85six"
    assert rows(tmp_path / "a.csv", f"text,label\n{text},pos\n".encode())[0] == [(text, "pos")]
    assert rows(tmp_path / "a.jsonl", '{"text":"a\u2028b","label":"pos"}\n'.encode())[0] == [
        ("a\u2028b", "pos")
    ]


def test_newlines_and_delimiters_in_quotes(tmp_path):
    content = b'text,label\n"one, two\nthree ""four""\r\nfive",pos\nsix,neg\nseven\n'
    found, told = rows(tmp_path / "a.csv", content)
    assert found == [('one, two\nthree "four"\r\nfive', "pos"), ("six", "neg")] and told == ["broken row"]
    (tmp_path / "a.csv").write_bytes(content)
    problems = Problems()
    lines = [line for line, _ in read_table(tmp_path / "a.csv", ("text", "label"), "", problems)]
    assert lines == [2, 5] and problems[0].line == 6


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_lone_quote_swallows_nothing(tmp_path, name):
    content = 'text,label\n"quoted at the start,pos\n5" long,neg\nplain,pos\nlast "word",neg\n'
    found, told = rows(tmp_path / name, content.replace(",", "\t" if name.endswith("tsv") else ",").encode())
    assert [label for _, label in found] == ["pos", "neg", "pos", "neg"] and told == ["lone quotes"]
    assert found[0][0] == '"quoted at the start'


def test_fields_of_any_length(tmp_path):
    long = "word " * 60_000
    assert rows(tmp_path / "a.csv", f"text,label\n{long},pos\nshort,neg\n".encode())[0][0] == (long, "pos")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("latin-1", "très naïf"), ("cp1252", "“smart” – naïve"), ("utf-16-le", "plain words")],
)
def test_other_encodings_are_found_and_said(tmp_path, encoding, text):
    found, told = rows(tmp_path / "a.csv", f"text,label\n{text},pos\n".encode(encoding))
    assert found == [(text, "pos")] and told == ["other encoding"]


def test_broken_bytes_break_their_row_only(tmp_path):
    content = "text,label\ntrès bien,pos\nna\udcffïf,neg\nété,neg\n".encode("utf-8", "surrogateescape")
    assert rows(tmp_path / "a.csv", content) == ([("très bien", "pos"), ("été", "neg")], ["broken line"])


def test_an_encoding_that_is_named_is_kept(tmp_path):
    content = "text,label\nпривет,pos\n".encode("cp1251")
    assert rows(tmp_path / "a.csv", content, "cp1251") == ([("привет", "pos")], [])
    with pytest.raises(DataError, match="not utf-16"):
        rows(tmp_path / "a.csv", b"text,label\nabc,pos\n", "utf-16")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a\0b\0\xff\0\0\0\x01", "no text"),
        (b"one,two\na,b\n", "no column 'text'"),
        (b"review,tweet,label\na,b,c\n", "no column 'text'"),
        (b"", "no column 'text'"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, content, told):
    with pytest.raises(DataError, match=told):
        rows(tmp_path / "a.csv", content)


def test_numbers_are_classes_by_their_value(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "good film,10\nbad film,9\n" * 10)
    (tmp_path / "b.csv").write_text("text,label\ngood film,10\nbad film,1\n")
    spec = {"kind": "table", "path": str(tmp_path), "train": "a.csv", "val": "b.csv"}
    data = open_data(spec)
    assert data.names == ("9", "10")
    assert data.sizes == {"train": 20, "val": 1} and data.problems.counts == {"unknown label": 1}


def test_one_class_is_no_task(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "good film,1\n" * 20)
    with pytest.raises(DataError, match="all 18 training samples are of the class '1'"):
        open_data(tmp_path / "a.csv")


def test_a_class_of_one_sample_stays_in_training():
    import numpy as np

    labels = np.array([0] * 30 + [1] + [2] * 2)
    held, kept = hold_out(labels, 0.1)
    assert sorted(labels[kept].tolist()).count(1) == 1 and 1 not in labels[held]
    assert list(labels[held]) == [0, 0, 0, 2] and len(held) + len(kept) == len(labels)
    assert 1 in labels[split(labels, 0.1)[0]]
