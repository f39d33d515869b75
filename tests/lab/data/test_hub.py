"""Data sets of the library `datasets`: what is read, how it is split, and what is refused in a line."""

from __future__ import annotations

import sys
from io import BytesIO

import numpy as np
import pytest
import torch

from unvanish.lab.data import DataError, open_data
from unvanish.lab.data.hub import find_files, split_of
from unvanish.lab.data.spec import read

LETTERS = "abcdefghij"


@pytest.fixture
def library(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    found = pytest.importorskip("datasets", minversion="4.0")
    found.disable_progress_bars()
    return found


def picture(number, side=12):
    from PIL import Image

    values = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    values[..., number % 2] //= 4
    buffer = BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def pictures(library, count=20, broken=(), labels=None):
    kinds = library.Features({"img": library.Image(), "label": library.ClassLabel(names=["red", "green"])})
    cells = [{"bytes": b"no picture", "path": None} if i in broken else picture(i) for i in range(count)]
    return library.Dataset.from_dict(
        {"img": cells, "label": labels or [i % 2 for i in range(count)]}, features=kinds
    )


def texts(library, count=20, **more):
    lines = [f"{'good' if i % 2 else 'bad'} film {LETTERS[i % 10]}" for i in range(count)]
    return library.Dataset.from_dict({"text": lines, "label": [i % 2 for i in range(count)], **more})


def test_pictures_with_classes(library, tmp_path):
    part = pictures(library, broken=(3,), labels=[-1, *([1, 0] * 9), 1])
    library.DatasetDict(train=part, test=pictures(library, 6)).save_to_disk(str(tmp_path / "set"))
    data = open_data(tmp_path / "set", task="classify", batch=4)
    assert data.names == ("red", "green") and data.facts == {"classes": 2, "channels": 3, "size": 12}
    assert data.sizes == {"train": 18, "val": 6}
    assert data.problems.counts == {"no label": 1, "broken image": 1}
    x, y = next(iter(data.train))
    assert x.shape == (4, 3, 12, 12) and abs(float(x.mean())) < 1 and set(y.tolist()) <= {0, 1}


@pytest.mark.parametrize("cache", [True, False])
def test_without_validation_rows_are_held_out_of_every_class(library, tmp_path, cache):
    pictures(library).save_to_disk(str(tmp_path / "set"))
    data = open_data(f"hf:{tmp_path / 'set'}", task="classify", batch=4, imgsz=16, cache=cache)
    assert data.sizes == {"train": 18, "val": 2}
    assert sorted(torch.cat([y for _, y in data.val]).tolist()) == [0, 1]
    assert next(iter(data.train))[0].shape[-1] == 16


def test_a_test_split_without_classes_is_not_validated_on(library, tmp_path):
    kept = library.DatasetDict(train=pictures(library), test=pictures(library, 6, labels=[-1] * 6))
    kept.save_to_disk(str(tmp_path / "set"))
    data = open_data(tmp_path / "set", task="classify", batch=4)
    assert data.sizes == {"train": 18, "val": 2} and data.problems.counts == {"no labels": 1}
    given = {"kind": "hf", "path": str(tmp_path / "set"), "val": "test"}
    with pytest.raises(DataError, match="no row has a class"):
        open_data(given, task="classify")


def test_texts_with_classes(library, tmp_path):
    library.DatasetDict(train=texts(library), validation=texts(library, 4)).save_to_disk(str(tmp_path / "s"))
    data = open_data({"kind": "hf", "path": str(tmp_path / "s")}, task="sentiment", least=1, batch=4)
    assert data.names == ("0", "1") and data.sizes == {"train": 20, "val": 4}
    assert data.decode(data.encode("good film")) == "good film"


def test_a_translation_says_its_direction(library, tmp_path):
    cells = [{"en": f"the cat {c}", "de": f"die katze {c}"} for c in LETTERS] + [{"en": "", "de": "leer"}]
    kinds = library.Features({"translation": library.Translation(languages=["en", "de"])})
    library.Dataset.from_dict({"translation": cells}, features=kinds).save_to_disk(str(tmp_path / "s"))
    data = open_data(tmp_path / "s", task="translate", batch=2, tokens="words")
    assert data.sizes == {"train": 9, "val": 1} and "en is the source" in str(data.problems)
    assert data.problems.counts["missing value"] == 1
    turned = open_data(tmp_path / "s", task="translate", batch=2, tokens="words", columns=("de", "en"))
    assert "katze" in turned.content.vocabulary.state()["entries"]


@pytest.mark.parametrize("form", ["parquet", "csv", "json"])
def test_a_folder_of_files_is_read_by_their_names(library, tmp_path, form):
    folder = tmp_path / "s" / "data"
    folder.mkdir(parents=True)
    for split, rows in (("train", texts(library)), ("validation", texts(library, 6))):
        getattr(rows, f"to_{form}")(str(folder / f"{split}-00000-of-00001.{form}"))
    (tmp_path / "s" / "s.py").write_text("raise SystemExit('ran')")
    (tmp_path / "s" / "README.md").write_text("---\nconfigs: [{config_name: a, data_files: '../*'}]\n---\n")
    data = open_data(f"hf:{tmp_path / 's'}", task="sentiment", least=1)
    assert data.sizes == {"train": 20, "val": 6}


@pytest.mark.parametrize(
    ("make", "task", "settings", "told"),
    [
        (pictures, "sentiment", {}, "one column of texts"),
        (texts, "classify", {}, "one column of pictures"),
        (texts, "translate", {}, "for translate it needs"),
        (texts, "sentiment", {"columns": ("text", "lable")}, "no column 'lable'"),
        (texts, "sentiment", {"columns": ("text",)}, "must name two columns"),
        (
            lambda lib: texts(lib, title=["x"] * 20).rename_column("text", "body"),
            "sentiment",
            {},
            "name them",
        ),
        (lambda lib: texts(lib).remove_columns("label"), "sentiment", {}, "one of classes"),
        (lambda lib: pictures(lib, labels=[-1] * 20), "classify", {}, "no row has a class"),
        (lambda lib: pictures(lib, labels=[1] * 20), "classify", {}, "all 18 training samples are of"),
        (lambda lib: pictures(lib, broken=range(20)), "classify", {}, "no picture of the column 'img'"),
        (lambda lib: texts(lib).select([]), "sentiment", {}, "cannot be opened"),
    ],
)
def test_what_does_not_fit_is_one_line(library, tmp_path, make, task, settings, told):
    make(library).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError) as error:
        open_data(tmp_path / "set", task=task, **settings)
    assert told in str(error.value).splitlines()[0]


def test_splits_are_named(library, tmp_path):
    library.DatasetDict(a=texts(library), b=texts(library, 6)).save_to_disk(str(tmp_path / "s"))
    with pytest.raises(DataError, match="there are a, b"):
        open_data(tmp_path / "s", task="sentiment")
    given = {"kind": "hf", "path": str(tmp_path / "s")}
    with pytest.raises(DataError, match=r"no split 'c'.*there are a, b"):
        open_data({**given, "train": "c"}, task="sentiment")
    assert open_data({**given, "train": ["a", "b"]}, task="sentiment").sizes == {"train": 24, "val": 2}
    assert open_data({**given, "train": "a", "val": "b"}, task="sentiment").sizes == {"train": 20, "val": 6}


def test_a_name_that_is_nowhere_is_one_line(library):
    with pytest.raises(DataError, match="neither a folder here nor in the library's cache"):
        open_data("hf:nobody/nothing", task="sentiment", download=False)


def test_a_missing_library_and_an_old_one_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'unvanish\[datasets\]'"):
        open_data("hf:imdb", task="sentiment")
    old = type(sys)("datasets")
    old.__version__ = "2.14.6"
    monkeypatch.setitem(sys.modules, "datasets", old)
    with pytest.raises(DataError, match=r"may run a data set's script; take 4\.0 or newer"):
        open_data("hf:imdb", task="sentiment")


def test_a_name_and_a_saved_folder_are_of_this_kind(tmp_path):
    assert (read("hf:stanfordnlp/imdb").kind.name, read("hf:stanfordnlp/imdb").path) == (
        "hf", ("stanfordnlp/imdb",),
    )  # fmt: skip
    assert read(tmp_path).kind.name == "folder"
    (tmp_path / "state.json").write_text("{}")
    assert read(tmp_path).kind.name == "hf"


def test_files_are_told_apart_by_their_names(tmp_path):
    for name in (
        "data/train-0.parquet",
        "data/val-0.parquet",
        "test/x.parquet",
        "a.csv",
        ".hidden/b.parquet",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    form, splits = find_files(tmp_path, "")
    assert form == "parquet" and set(splits) == {"train", "validation", "test"}
    assert split_of(tmp_path / "contest.csv", tmp_path) == "train"
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no file of"):
        find_files(tmp_path / "none", "")
