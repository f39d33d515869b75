"""Text sets from files: lines, documents, parallel texts, tables; broken lines are named, counted and left
out.
"""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unvanish.lab.data import DataError, open_data
from unvanish.lab.data.texts import Ragged
from unvanish.lab.data.vocabulary import BytePairs, Characters, Words, restore_vocabulary, words
from unvanish.lab.tokens import BEGIN, END, PAD, UNKNOWN


@given(st.lists(st.lists(st.integers(4, 99), max_size=9), min_size=1, max_size=12), st.data())
def test_rows_are_padded_and_marked(rows, data):
    indices = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6)))
    chosen = [rows[i] for i in indices]
    ragged = Ragged(rows)
    for before, after in ((None, None), (BEGIN, None), (None, END), (BEGIN, END)):
        first, last = ([] if mark is None else [mark] for mark in (before, after))
        expected = [[*first, *row, *last] for row in chosen]
        width = max(map(len, expected))
        table = ragged.pad(indices, before, after)
        assert table.tolist() == [r + [PAD] * (width - len(r)) for r in expected]


def lines_set(tmp_path, **fields):
    (tmp_path / "bad.txt").write_bytes(
        b"dull and slow\n\nnot good \xff at all\n" + b"a dull film\n" * 17 + b"\xc3\xa9t\xc3\xa9\n"
    )
    (tmp_path / "good.txt").write_bytes(b"bright and quick\na fine film\n" * 10)
    return {"kind": "lines", "files": ["bad.txt", "good.txt"], "names": ["neg", "pos"], **fields}


def test_a_file_for_each_class(tmp_path):
    data = open_data(lines_set(tmp_path), batch=8, length=2)
    assert data.task == "sentiment" and data.names == ("neg", "pos")
    assert data.problems.counts == {"broken line": 1, "empty text": 1}
    assert {(p.file.rsplit("/")[-1], p.line) for p in data.problems} == {("bad.txt", 2), ("bad.txt", 3)}
    assert sum(data.sizes.values()) == 39 and data.sizes["val"] == 4
    x, y = next(iter(data.train))
    assert x.shape[1] == 2 == data.facts["length"] and set(y.tolist()) <= {0, 1}
    assert int(x.max()) < data.facts["vocabulary"]
    latin = open_data(lines_set(tmp_path, encoding="latin-1"))
    assert latin.problems.counts == {"empty text": 1}


def test_the_vocabulary_is_that_of_the_training_part_alone(tmp_path):
    for part, text in (("train", "known words here"), ("test", "known secret here")):
        for name in ("neg", "pos"):
            (tmp_path / "films" / part / name).mkdir(parents=True)
            for i in range(3):
                (tmp_path / "films" / part / name / f"{i}.txt").write_text(f"{text}<br />", encoding="utf-8")
    (tmp_path / "films/train/unsup").mkdir()
    (tmp_path / "films/test/pos/2.txt").write_bytes(b"\xff\0\xff")
    spec = {"kind": "documents", "path": "films", "names": ["neg", "pos"], "least": 1}
    data = open_data(spec)
    assert data.sizes == {"train": 6, "val": 5} and data.problems.counts == {"broken file": 1}
    x, _ = next(iter(data.val))
    assert x[0, 1] == UNKNOWN and data.decode(x[0].tolist()) == "known [UNKNOWN] here"


def parallel(tmp_path, german, english):
    (tmp_path / "t.de.gz").write_bytes(gzip.compress("\n".join(german).encode() + b"\n"))
    (tmp_path / "t.en").write_text("\n".join(english) + "\n", encoding="utf-8")
    return {"kind": "parallel", "train": ["t.de.gz", "t.en"], "val": ["t.de.gz", "t.en"]}


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("tokens", ["pairs", "words"])
def test_pairs_are_translations_of_each_other(tmp_path, tokens, joint):
    german = [f"Der {w} läuft über die Straße ." for w in ("Hund", "Mann", "Fuchs")] * 4
    english = [f"The {w} runs across the street ." for w in ("dog", "man", "fox")] * 4
    options = {"tokens": tokens, "joint": joint, "vocabulary": 400}
    data = open_data(parallel(tmp_path, german, english), batch=12, **options)
    (source, so_far), following = next(iter(data.train))
    assert (so_far[:, 0] == BEGIN).all() and so_far.shape == following.shape
    assert (source == END).sum() == 12 == (following == END).sum()
    for s, t, n in zip(source.tolist(), so_far.tolist(), following.tolist(), strict=True):
        assert [i for i in t if i != PAD][1:] == [i for i in n if i not in (PAD, END)]
        one = data.content.vocabulary.decode(s[: s.index(END)])
        other = data.decode(n[: n.index(END)])
        assert english[german.index(one)] == other
    assert (data.facts["vocabulary"] == data.facts["target_vocabulary"]) or not joint
    assert int(source.max()) < data.facts["vocabulary"]
    turned = open_data(parallel(tmp_path, german, english), tokens="words", reverse=True)
    assert "dog" in turned.content.vocabulary.ids


def test_pairs_with_an_empty_side_are_left_out_and_lengths_must_agree(tmp_path):
    data = open_data(parallel(tmp_path, ["a b", "", "c"] * 3, ["x y", "z", "w"] * 3), tokens="words")
    assert data.sizes["train"] == 6 and data.problems.counts == {"empty line": 3}
    with pytest.raises(DataError, match=r"has 2 lines, .* 1: parallel files need the same number"):
        open_data(parallel(tmp_path, ["a", "b"], ["x"]))
    with pytest.raises(DataError, match="did you mean 'words'"):
        open_data(parallel(tmp_path, ["a"], ["x"]), tokens="word")


def table(tmp_path, form):
    rows = [("good film", "pos"), ("bad film", "neg"), ('so "good", really', "pos"), ("so bad", "neg")] * 5
    file = tmp_path / f"reviews.{form}"
    if form == "jsonl":
        text = "\n".join(json.dumps({"text": t, "label": y}) for t, y in rows)
        text += '\n{"text": "no label"}\nnot json\n[1]\n'
    else:
        mark = "," if form == "csv" else "\t"
        quoted = "".join('"{}"{}{}\n'.format(t.replace('"', '""'), mark, y) for t, y in rows)
        text = f"text{mark}label\n{quoted}"
        text += f"no label{mark}\nonly one value\n"
    file.write_text(text, encoding="utf-8")
    return file, len(rows)


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_your_own_table(tmp_path, form):
    file, count = table(tmp_path, form)
    data = open_data(file, batch=100, least=1)
    assert data.names == ("neg", "pos") and sum(data.sizes.values()) == count
    assert data.problems.counts["missing value"] == 1 and data.problems.counts["broken row"] >= 1
    first = min(p.line for p in data.problems)
    assert first == count + (1 if form == "jsonl" else 2)
    x, y = next(iter(data.train))
    for ids, label in zip(x.tolist(), y.tolist(), strict=True):
        assert ("good" in data.decode(ids)) == (label == 1)


def test_labels_that_training_lacks_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\ngood,pos\nbad,neg\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("text,label\ngood,pos\nhm,pso\n", encoding="utf-8")
    data = open_data({"kind": "table", "train": "a.csv", "val": "b.csv"}, least=1)
    assert [str(p) for p in data.problems] == [f"{tmp_path / 'b.csv'}:3: 'pso' (did you mean 'pos'?)"]


def test_a_missing_column_is_told_the_nearest(tmp_path):
    (tmp_path / "a.csv").write_text("texts,label\ngood,pos\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a.csv:1: no column 'text' \(did you mean 'texts'\?\)"):
        open_data(tmp_path / "a.csv")


def test_a_table_of_translations(tmp_path):
    rows = "\n".join(f"ein wort {i}\ta word {i}" for i in range(20))
    (tmp_path / "a.tsv").write_text(f"source\ttarget\n{rows}\n", encoding="utf-8")
    data = open_data(tmp_path / "a.tsv", task="translate", tokens="words")
    assert data.sizes == {"train": 18, "val": 2} and data.task == "translate"


def test_words_and_signs():
    assert words("It's so-so, isn’t it? ÄH 3.5") == [
        "it's",
        "so",
        "-",
        "so",
        ",",
        "isn’t",
        "it",
        "?",
        "äh",
        "3",
        ".",
        "5",
    ]
    known = Words.of(["b a a", "c a b"], least=2)
    assert known.entries[4:] == ["a", "b"] and known.encode("a c b") == [4, UNKNOWN, 5]
    assert len(Words.of(["b a a", "c a b"], least=1, most=6)) == 6


@pytest.mark.parametrize(
    "vocabulary",
    [
        lambda texts: Characters.of("".join(texts)),
        lambda texts: Words.of(texts, least=1, lower=False),
        lambda texts: BytePairs.of(texts, 400),
    ],
)
def test_a_vocabulary_goes_there_and_back_and_into_a_checkpoint(vocabulary):
    texts = ["Der Fuchs läuft über die Straße .", "Straße , Fuchs !"]
    known = vocabulary(texts)
    again = restore_vocabulary(json.loads(json.dumps(known.state())))
    assert len(again) == len(known)
    for text, ids in zip(texts, known.encode_all(texts), strict=True):
        assert known.decode([BEGIN, *ids, END]) == text and again.encode(text) == ids == known.encode(text)
        assert min(ids) >= 4


def test_byte_pairs_are_kept_and_read_everything(tmp_path, monkeypatch):
    texts = ["low lower lowest newer wider"] * 9
    known = BytePairs.of(texts, 300)
    kept = list((tmp_path / "cache" / "vocabularies").iterdir())
    assert len(kept) == 1
    monkeypatch.setattr(
        "unvanish.lab.data.vocabulary._train_byte_pairs", lambda *_: pytest.fail("trained again")
    )
    assert BytePairs.of(texts, 300).state() == known.state()
    assert known.decode(known.encode("völlig neu 語")) == "völlig neu 語"


def test_the_longest_windows_a_text_allows(tmp_path):
    (tmp_path / "t.txt").write_text("abcdefghij" * 3, encoding="utf-8")
    with pytest.raises(DataError, match="lower `length`"):
        open_data(tmp_path / "t.txt", length=20)
    data = open_data(tmp_path / "t.txt", length=5)
    x, y = next(iter(data.train))
    assert torch.equal(x[:, 1:], y[:, :-1]) and data.facts["vocabulary"] == 14
