"""Data sets of the Hugging Face library `datasets`: `data=hf:NAME`, or a folder.

`path` is a name on the hub (fetched, or taken from the library's cache), a folder that `save_to_disk` wrote,
or one of .parquet, .arrow, .jsonl, .json or .csv files; `subset` names a configuration. `train` and `val`
name splits; without `val`, the split validation, valid, val, dev or test is taken, else the share `held_out`
of the training rows. The columns are found by their types (pictures and classes, texts and classes, a
translation), or named by `columns`, input and target. The other settings are those of folders and tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unvanish.core.names import show
from unvanish.lab.data.content import Content, Source, image_content
from unvanish.lab.data.corpora import (
    Excerpt,
    Labelled,
    Sentences,
    Tokens,
    sentiment_content,
    translation_content,
)
from unvanish.lab.data.hub import Rows, find_splits, import_datasets
from unvanish.lab.data.part import Indices, hold_out
from unvanish.lab.data.pictures import fits_in_memory
from unvanish.lab.data.problems import DataError
from unvanish.lab.data.row_images import RowImages, native_side

TASKS = ("classify", "sentiment", "translate")
LABELS = ("label", "labels", "class", "target", "category")
TEXTS = ("text", "sentence", "content", "review")
STRINGS = ("string", "large_string")
MANY = 10_000  # classes


def read(
    source: Source,
    *,
    subset: str = "",
    columns: tuple[str, ...] = (),
    channels: int = 3,
    crop: int = -1,
    flip: bool = True,
    held_out: float = 0.1,
    least: int = 2,
    most: int = 0,
    length: int = 0,
    tokens: str = "pairs",
    vocabulary: int = 8000,
    joint: bool = False,
    lower: bool = False,
) -> Content:
    """The rows of the splits."""
    if len(columns) not in (0, 2):
        raise DataError(f"{source.spec.name}: `columns` must name two columns, input and target")
    train, val = find_splits(source, subset)
    if source.task == "translate":
        pairs = [read_sentences(rows, columns, source) if rows else None for rows in (train, val)]
        return of_sentences(source, pairs, held_out, Tokens(tokens, vocabulary, joint, lower))
    column, label = find_columns(train, columns, source)
    names = list_names(train, label, source)
    parts = [with_labels(train, label, names, source)]
    if val is not None and ("val" in source.spec.parts or has_classes(val, label, names)):
        parts.append(with_labels(val, label, names, source))
    else:
        if val is not None:
            said = "the split for validation has no classes; training rows are held out"
            source.problems.add(source.spec.name, 0, "no labels", said)
        rows, labels = parts[0]
        parts = [(rows.select(i), labels[i]) for i in reversed(hold_out(labels, held_out))]
    if source.task == "sentiment":
        texts = [read_texts(rows, labels, column, source) for rows, labels in parts]
        return sentiment_content(source, texts[0], texts[1], names, Excerpt(least, most, length))
    return of_images(source, parts, column, names, (channels, crop, flip))


def of_images(
    source: Source, parts: Sequence[tuple[Rows, Indices]], column: str, names: Sequence[str],
    how: tuple[int, int, bool],
) -> Content:  # fmt: skip
    """The pictures of the training and the validation rows; `how`: channels, crop and flip."""
    channels, crop, flip = how
    raw = import_datasets().Image(decode=False)
    pictures = [(rows.cast_column(column, raw), labels) for rows, labels in parts]
    size = source.imgsz or native_side(pictures[0][0], column)
    images = [RowImages(rows, column, labels, size, channels) for rows, labels in pictures]
    sample = images[0].sample()
    held = [
        part.load(source.spec.name, source.problems)
        if fits_in_memory(len(part), channels, size, source.cache, source.problems)
        else part
        for part in images
    ]
    shift = size // 8 if crop < 0 else crop
    return image_content(source, held[0], held[1], sample, names, shift, flip)


def of_sentences(
    source: Source, pairs: Sequence[Sentences | None], held_out: float, tokens: Tokens
) -> Content:
    """The pairs of the training and the validation rows."""
    train, val = pairs
    assert train is not None
    if val is None:
        held, kept = hold_out(np.zeros(len(train[0]), np.int64), held_out)
        val, train = (([train[0][i] for i in some], [train[1][i] for i in some]) for some in (held, kept))
    return translation_content(source, train, val, None, tokens)


def find_columns(rows: Rows, columns: Sequence[str], source: Source) -> tuple[str, str]:
    """The columns of the input and of its class; DataError lists those that there are."""
    features = rows.features
    if columns:
        require_columns(rows, columns, source)
        return columns[0], columns[1]
    seen = source.task == "classify"
    kinds = {
        n: "Image" if type(f).__name__ == "Image" else getattr(f, "dtype", "") for n, f in features.items()
    }
    inputs = [n for n, kind in kinds.items() if kind in (("Image",) if seen else STRINGS)]
    classes = [n for n, f in features.items() if type(f).__name__ == "ClassLabel"]
    classes = classes or [n for n in LABELS if n in features and n not in inputs[:1]]
    chosen = pick_one(inputs, ("image", "img") if seen else TEXTS), pick_one(classes, LABELS)
    if not all(chosen):
        what = "one column of pictures" if seen else "one column of texts"
        raise DataError(
            f"{source.spec.name} has the columns {list_features(rows)}; for {source.task} it needs {what} and"
            " one of classes: name them, `columns: [input, target]`, or train a network for another task"
        )
    return chosen


def pick_one(names: Sequence[str], usual: Sequence[str]) -> str:
    """The only name, or the only usual one; empty if there is none, or more."""
    known = [n for n in usual if n in names]
    return names[0] if len(names) == 1 else known[0] if known else ""


def require_columns(rows: Rows, columns: Sequence[str], source: Source) -> None:
    """DataError for a column that there is not."""
    for name in columns:
        if name not in rows.features:
            raise DataError(f"{source.spec.name} has no column {name!r}; there are {list_features(rows)}")


def list_features(rows: Rows) -> str:
    """The columns with their types, in words."""
    kinds = ((n, getattr(f, "dtype", None) or type(f).__name__) for n, f in rows.features.items())
    return ", ".join(f"{show(n)} ({k if isinstance(k, str) else type(k).__name__})" for n, k in kinds)[:400]


def list_names(rows: Rows, label: str, source: Source) -> list[str]:
    """The names of the classes: the column's, else its values in order."""
    own = getattr(rows.features[label], "names", None)
    if own:
        return [str(name) for name in own]
    values: set[Any] = {v for v in rows.unique(label) if isinstance(v, str | int)}
    if not values or len(values) > MANY:
        raise DataError(
            f"{source.spec.name}: the column {label!r} has {len(values):,} classes, which are none"
        )
    ordered = sorted(values) if len({type(v) for v in values}) == 1 else sorted(values, key=str)
    return list(source.order_names([str(v) for v in ordered]))


def has_classes(rows: Rows, label: str, names: Sequence[str]) -> bool:
    """Whether any row has a class: the tests of contests have none."""
    if label not in rows.features:
        return False
    known = {*names, *range(len(names))}
    return any(value in known for value in rows.unique(label))


def with_labels(rows: Rows, label: str, names: Sequence[str], source: Source) -> tuple[Rows, Indices]:
    """The rows that have a class, and their classes; the others are reported."""
    numbers = {name: i for i, name in enumerate(names)}
    listed = getattr(rows.features[label], "names", None) is not None
    found = []
    for number, value in enumerate(rows[label]):
        known = value if listed and isinstance(value, int) else numbers.get(str(value), -1)
        found.append(known if 0 <= known < len(names) else -1)
        if found[-1] < 0:
            source.problems.add(source.spec.name, number + 1, "no label", f"{value!r} is no class")
    labels = np.array(found, np.int64)
    good = np.flatnonzero(labels >= 0)
    if not len(good):
        raise DataError(f"{source.spec.name}: no row has a class in the column {label!r}. {source.problems}")
    return (rows if len(good) == len(labels) else rows.select(good)), labels[good]


def read_texts(rows: Rows, labels: Indices, column: str, source: Source) -> Labelled:
    """The texts of a column with their classes."""
    texts = Labelled.none()
    for number, (text, label) in enumerate(zip(rows[column], labels, strict=True), 1):
        if isinstance(text, str) and text.strip():
            texts.add(text.strip(), int(label), source.spec.name, number)
        else:
            source.problems.add(source.spec.name, number, "missing value", f"no {column!r} in this row")
    return texts


def read_sentences(rows: Rows, columns: Sequence[str], source: Source) -> Sentences:
    """The pairs of a translation column, or of two columns of texts; incomplete ones are reported."""
    packed = [n for n, f in rows.features.items() if type(f).__name__ == "Translation"]
    if len(packed) == 1:
        languages = list(columns or list(rows.features[packed[0]].languages)[:2])
        cells: Any = rows[packed[0]]
        said = f"{languages[0]} is the source, {languages[-1]} the target; `columns` says otherwise"
        source.problems.add(source.spec.name, 0, "languages", said)
    else:
        languages = list(columns) or [n for n in ("source", "target") if n in rows.features]
        require_columns(rows, languages, source)
        if len(languages) != 2:
            raise DataError(
                f"{source.spec.name} has the columns {list_features(rows)}; for translate it needs a"
                " translation, or two columns of texts: name them, `columns: [source, target]`"
            )
        cells = [
            dict(zip(languages, pair, strict=True))
            for pair in zip(*(rows[n] for n in languages), strict=True)
        ]
    pairs: Sentences = ([], [])
    for number, cell in enumerate(cells, 1):
        both = [cell.get(name) if isinstance(cell, Mapping) else None for name in languages]
        if all(isinstance(text, str) and text.strip() for text in both):
            for side, text in zip(pairs, both, strict=True):
                side.append(str(text).strip())
        else:
            source.problems.add(source.spec.name, number, "missing value", "a side of this pair is empty")
    return pairs
