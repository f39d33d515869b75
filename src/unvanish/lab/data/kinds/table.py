"""Your own texts in a .csv, .tsv or .jsonl table: a text and a label per row, or a source and a target.

The columns are called `text` and `label` (for sentiment) or `source` and `target` (for translation), or as
`columns` says. Labels may be words or numbers; the classes are `names`, or those of the training table in
alphabetical order. Without `val`, the share `held_out` of the rows is used for validation. Rows that cannot
be used are reported with their line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
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
from unvanish.lab.data.part import split
from unvanish.lab.data.problems import DataError, Problems

TASKS = ("sentiment", "translate")
Row = tuple[int, dict[str, str]]


def read(
    source: Source,
    *,
    columns: tuple[str, ...] = (),
    encoding: str = "utf-8",
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
        held, kept = split(np.zeros(len(train), np.int64), held_out)
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
    names = source.spec.names or source.order_names(sorted({label for *_, label in train}))
    first = with_labels(train, names, source.problems)
    if val is not None:
        return sentiment_content(source, first, with_labels(val, names, source.problems), names, cut)
    held, kept = split(np.array(first.labels, np.int64), held_out)
    return sentiment_content(source, first.pick(kept.tolist()), first.pick(held.tolist()), names, cut)


def with_labels(cells: Cells, names: Sequence[str], problems: Problems) -> Labelled:
    """Texts with the number of their label; a label that is not a name may be a number."""
    numbers = {name: i for i, name in enumerate(names)}
    numbers |= {str(i): i for i in range(len(names)) if str(i) not in numbers}
    texts = Labelled.none()
    for file, line, text, label in cells:
        if label not in numbers:
            problems.add(file, line, "unknown label", f"{label!r}{suggest(label, names)}")
            continue
        texts.add(text, numbers[label], file, line)
    return texts


def part(source: Source, name: str, columns: tuple[str, ...], encoding: str) -> Cells | None:
    """The two columns of a part's tables; None if the YAML does not name it."""
    files = source.spec.parts.get(name)
    if not files:
        return None
    found: Cells = []
    for file in map(source.need, files):
        for line, row in rows(file, columns, encoding, source.problems):
            one, other = (row.get(column) for column in columns)
            if one and other and one.strip() and other.strip():
                found.append((file, line, one.strip(), other.strip()))
            else:
                lacking = columns[0] if not (one and one.strip()) else columns[1]
                source.problems.add(file, line, "missing value", f"no {lacking!r} in this row")
    return found


def rows(file: Path, columns: Sequence[str], encoding: str, problems: Problems) -> Iterator[Row]:
    """The rows of a table as (line, values by column); DataError if a column is missing."""
    text = file.read_text(encoding=encoding, errors="replace")
    if file.suffix == ".jsonl":
        yield from json_rows(file, text, problems)
        return
    if file.suffix not in (".csv", ".tsv"):
        raise DataError(f"{file} is not a .csv, .tsv or .jsonl file")
    reader = csv.DictReader(text.splitlines(), delimiter="\t" if file.suffix == ".tsv" else ",")
    try:
        yield from csv_rows(file, reader, columns, problems)
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: not a table: {error}") from error


def csv_rows(
    file: Path, reader: csv.DictReader[str], columns: Sequence[str], problems: Problems
) -> Iterator[Row]:
    """The rows that a reader finds; DataError if a column is missing."""
    header = reader.fieldnames or []
    for column in columns:
        if column not in header:
            there = f"{suggest(column, header)}; there are {', '.join(header)}"
            raise DataError(f"{file}:1: no column {column!r}{there}; set `columns`")
    for row in reader:
        if None in row or None in row.values():
            problems.add(
                file, reader.line_num, "broken row", f"it does not have {len(header)} values like the header"
            )
            continue
        yield reader.line_num, row


def json_rows(file: Path, text: str, problems: Problems) -> Iterator[Row]:
    """The objects of a .jsonl file, one per line, their values as text."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.add(file, number, "broken row", f"not JSON ({str(error)[:100]})")
            continue
        if not isinstance(row, dict):
            problems.add(file, number, "broken row", "not a JSON object")
            continue
        yield number, {str(k): str(v) for k, v in row.items() if v is not None}
