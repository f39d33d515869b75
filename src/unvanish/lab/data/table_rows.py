"""The rows of a table: CSV, TSV or JSON lines, as people's programs write them.

Notable:
- The delimiter is the one that the header has most of; a quote that opens a field and never closes it is a
  letter, not the end of the table.
- Columns are found by their names in any case, and by usual ones if only one of these is there.
"""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from unvanish.core.registry import suggest
from unvanish.lab.data.encoding import read_file
from unvanish.lab.data.problems import DataError, Problems

DELIMITERS = {".csv": (",", ";", "\t", "|"), ".tsv": ("\t",)}
SUFFIXES = (*DELIMITERS, ".jsonl")
USUAL = {
    "text": ("text", "sentence", "review", "content", "comment", "message", "tweet", "body", "document"),
    "label": ("label", "sentiment", "class", "category", "target", "rating", "stars", "polarity"),
    "source": ("source", "src", "input", "source_text"),
    "target": ("target", "tgt", "trg", "translation", "output", "target_text"),
}
LIMIT = threading.Lock()
Row = tuple[int, dict[str, str]]
Cells = tuple[int, list[str]]  # the line where a row begins, and its values


def read_table(file: Path, columns: Sequence[str], encoding: str, problems: Problems) -> Iterator[Row]:
    """The rows as (line, values by the names in `columns`); DataError if a column is missing."""
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{file} is not a .csv, .tsv or .jsonl file")
    text = read_file(file, encoding, problems)
    if suffix == ".jsonl":
        yield from _name_values(file, read_json_rows(file, text, problems), columns, problems)
        return
    cells = read_cells(file, text, problems)
    line, header = next(cells, (1, [""]))
    found = find_columns(file, [name.strip() for name in header], columns, problems, line)
    for line, values in cells:
        if len(values) != len(header):
            why = f"it has {len(values)} values, and the header {len(header)}"
            problems.add(file, line, "broken row", why)
            continue
        yield line, {name: values[place] for name, place in zip(columns, found, strict=True)}


def find_columns(
    file: Path, header: Sequence[str], columns: Sequence[str], problems: Problems, line: int = 1
) -> list[int]:
    """The places of the columns in a header; DataError if one is missing; another name is noted."""
    folded, found = [name.casefold() for name in header], []
    for column in columns:
        alike = [i for i, name in enumerate(folded) if name == column.casefold()]
        usual = [i for i, name in enumerate(folded) if name in USUAL.get(column, ()) and i not in found]
        places = [header.index(column)] if column in header else alike or usual
        if len(places) != 1:
            there = f"{suggest(column, header)}; there are {', '.join(header)[:300]}"
            raise DataError(f"{file}:{line}: no column {column!r}{there}; set `columns`")
        if not alike:
            name = header[places[0]]
            problems.add(
                file, line, "other column", f"{name!r} is taken for {column!r}; `columns` says which"
            )
        found.append(places[0])
    return found


def read_cells(file: Path, text: str, problems: Problems) -> Iterator[Cells]:
    """The rows of a CSV or TSV text, empty ones left out."""
    head = next((row for row in text.split("\n") if row.strip()), "")
    delimiter = max(DELIMITERS[file.suffix.lower()], key=head.count)
    try:
        rows = _parse(text, delimiter, quoted=True)
    except csv.Error as error:
        problems.add(file, 0, "lone quotes", f"quotes that do not pair ({error}) are read as letters")
        rows = _parse(text, delimiter, quoted=False)
    yield from rows


def _parse(text: str, delimiter: str, *, quoted: bool) -> list[Cells]:
    """The rows; csv.Error if quotes do not pair."""
    source = io.StringIO(text, newline="")
    if quoted:
        rows = csv.reader(source, delimiter=delimiter, strict=True)
    else:
        rows = csv.reader(source, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    found, line = [], 1
    with LIMIT:  # the process has one; a field may be nearly all of the text
        usual = csv.field_size_limit(len(text) + 1)
        try:
            for values in rows:
                if values:
                    found.append((line, values))
                line = rows.line_num + 1
        finally:
            csv.field_size_limit(usual)
    return found


def read_json_rows(file: Path, text: str, problems: Problems) -> Iterator[Row]:
    """The objects of a .jsonl text, one per line, their values as text."""
    for number, line in enumerate(text.split("\n"), 1):
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


def _name_values(
    file: Path, rows: Iterator[Row], columns: Sequence[str], problems: Problems
) -> Iterator[Row]:
    """JSON rows with the names in `columns`, by the keys of the first row."""
    keys: list[str] = []
    for line, row in rows:
        if not keys:
            header = list(row)
            keys = [header[i] for i in find_columns(file, header, columns, problems, line)]
        yield line, {name: row[key] for name, key in zip(columns, keys, strict=True) if key in row}
