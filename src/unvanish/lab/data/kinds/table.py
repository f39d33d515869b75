"""Your own texts in a .csv, .tsv or .jsonl table: a text and a label per row, or a source and a target.

The columns are called `text` and `label` (for sentiment) or `source` and `target` (for translation), or as
`columns` says; other usual names of columns are taken if only one fits, and said. Labels may be words or
numbers; the classes are `names`, or those of the training table in alphabetical order, numbers by value.
Without `val`, the share `held_out` of the rows is used for validation. Rows that cannot be used are reported
with their line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from unvanish.core.registry import suggest
from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.corpora import (
    Excerpt,
    Labelled,
    Sentences,
    Tokens,
    sentiment_content,
    translation_content,
)
from unvanish.lab.data.limits import check_encoding
from unvanish.lab.data.part import hold_out
from unvanish.lab.data.problems import DataError, Problems
from unvanish.lab.data.table_rows import read_table

TASKS = ("sentiment", "translate")


def read(
    source: Source,
    *,
    columns: tuple[str, ...] = (),
    encoding: str = "",
    held_out: float = 0.1,
    least: int = 2,
    most: int = 0,
    length: int = 0,
    tokens: str = "pairs",
    vocabulary: int = 8000,
    joint: bool = False,
    lower: bool = False,
) -> Content:
    """The rows of the tables."""
    usual = ("text", "label") if source.task == "sentiment" else ("source", "target")
    if len(columns) not in (0, 2):
        raise DataError(f"{source.spec.name}: `columns` must name two columns, as [{', '.join(usual)}]")
    train, val = (
        part(source, name, tuple(columns) or usual, check_encoding(encoding)) for name in ("train", "val")
    )
    if train is None:
        raise DataError(f"{source.spec.name}: `train` must name a .csv, .tsv or .jsonl file")
    if source.task == "sentiment":
        return sentiment_rows(source, train, val, held_out, Excerpt(least, most, length))
    if val is None:
        held, kept = hold_out(np.zeros(len(train), np.int64), held_out)
        train, val = [train[i] for i in kept], [train[i] for i in held]
    return translation_content(
        source, split_columns(train), split_columns(val), None, Tokens(tokens, vocabulary, joint, lower)
    )


Cells = list[tuple[Path, int, str, str]]


def split_columns(cells: Cells) -> Sentences:
    """Two lists, sources and targets."""
    return [c[2] for c in cells], [c[3] for c in cells]


def sentiment_rows(source: Source, train: Cells, val: Cells | None, held_out: float, cut: Excerpt) -> Content:
    """Rows of text and label; labels that the training part does not have are reported and left out."""
    names = source.spec.names or source.order_names(sort_labels({label for *_, label in train}))
    first = with_labels(train, names, source.problems)
    if val is not None:
        return sentiment_content(source, first, with_labels(val, names, source.problems), names, cut)
    held, kept = hold_out(np.array(first.labels, np.int64), held_out)
    return sentiment_content(source, first.pick(kept.tolist()), first.pick(held.tolist()), names, cut)


def with_labels(cells: Cells, names: Sequence[str], problems: Problems) -> Labelled:
    """Texts with the number of their label; a label that is not a name may be a number."""
    numbers = {name: i for i, name in enumerate(names)}
    if not any(map(is_number, names)):  # else a number is a name
        numbers |= {str(i): i for i in range(len(names))}
    texts = Labelled.none()
    for file, line, text, label in cells:
        if label not in numbers:
            problems.add(file, line, "unknown label", f"{label!r}{suggest(label, names)}")
            continue
        texts.add(text, numbers[label], file, line)
    return texts


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Labels in the order of their numbers if all are some, else by the alphabet."""
    listed = sorted(labels)
    return sorted(listed, key=float) if all(map(is_number, listed)) else listed


def is_number(label: str) -> bool:
    """Whether a label is a finite number."""
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def part(source: Source, name: str, columns: tuple[str, ...], encoding: str) -> Cells | None:
    """The two columns of a part's tables; None if the YAML does not name it."""
    files = source.spec.parts.get(name)
    if not files:
        return None
    found: Cells = []
    for file in map(source.need, files):
        for line, row in read_table(file, columns, encoding, source.problems):
            one, other = (row.get(column) for column in columns)
            if one and other and one.strip() and other.strip():
                found.append((file, line, one.strip(), other.strip()))
            else:
                lacking = columns[0] if not (one and one.strip()) else columns[1]
                source.problems.add(file, line, "missing value", f"no {lacking!r} in this row")
    return found
