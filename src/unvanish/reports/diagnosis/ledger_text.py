"""The ledger as a bar chart of characters: rows from the loss to the input, bars around a zero axis.

Notable:
- Long ledgers are folded, and only blocks that hold a third of the whole are opened.
- The columns fit any width from 60 cells: label, decades, bar, the split, the running total.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from unvanish.core.ledger import Ledger, Row
from unvanish.reports.parts.bars import AXIS, BarScale
from unvanish.reports.parts.fold import PARTS, Fold, fold, size
from unvanish.reports.parts.sheet import assemble, clip, hang, pad
from unvanish.reports.parts.words import clean, decades, plural

LOSES, GAINS = "bright_blue", "dark_orange"
HEADS = {"weights": "weight", "slope": "slope", "alignment": "align"}
NUMBER, PART, BAR = 8, 7, 15
FEW, ROOMY = 3, 8  # rows for which there is a sentence in place of bars; a title above them


@dataclass(frozen=True)
class LedgerLine:
    """A line before its layout; `below` is None if a later line of the same fold has the running total."""

    label: str
    level: int
    row: Row | Fold
    below: float | None


@dataclass(frozen=True)
class Columns:
    """Widths in cells, the bars' scale, and the parts that have a column."""

    label: int
    scale: BarScale
    parts: tuple[str, ...]


def draw_ledger(book: Ledger, width: int, budget: int = 16) -> list[Text]:
    """The ledger in lines of at most `width` cells, in about `budget` rows; empty without rows."""
    if not book.rows or not budget:
        return []
    lines = list(_lines(book.rows, 0, budget))
    columns = _columns(lines, width)
    singles = [line.row for line in lines if isinstance(line.row, Row)]
    worst = max(singles, key=lambda row: size(row.decades), default=None)
    if budget < FEW:
        return _summarise(book, worst, width)
    text = "log10 of the gradient's gain, from the loss down to the input"
    title = clip(hang([("gradient ledger: ", "bold")], text, width, 2, "dim"), 1)
    body = [_line(line, columns, line.row is worst) for line in lines]
    if budget < ROOMY:
        return [_heading(columns, "gradient ledger"), *body, _total(book, columns)]
    return [*title, _heading(columns), *body, _total(book, columns)]


def _summarise(book: Ledger, worst: Row | None, width: int) -> list[Text]:
    """The total and the worst row in a sentence."""
    most = f", the most at {clean(worst.path) or '(model)'}: {decades(worst.decades)}" if worst else ""
    text = f"{decades(book.total)} decades over {plural(len(book.rows), 'row')}{most}"
    return clip(hang([("gradient ledger: ", "bold")], text, width, 2), 2)


def _lines(rows: Sequence[Row], level: int, budget: int) -> Iterator[LedgerLine]:
    whole = sum(size(row.decades) for row in rows)
    ends, worst = (2, 6) if budget >= 16 else (1, max(budget - 4, 1))
    for row in fold(rows, budget=budget if level == 0 else max(budget // 2, 2), ends=ends, worst=worst):
        if isinstance(row, Fold):
            yield from _fold_lines(row, level)
            continue
        yield LedgerLine(clean(row.path) or "(model)", level, row, row.below)
        if len(row.children) > 1 and level < 2 and size(row.decades) >= whole / 3:
            yield from _lines(row.children, level + 1, budget)


def _fold_lines(whole: Fold, level: int) -> Iterator[LedgerLine]:
    """One line for each kind in a fold, the running total on the last."""
    groups = list(whole.by_kind.items())
    for index, (kind, part) in enumerate(groups):
        label = f"... {len(part.rows)} more {kind or 'rows'}"
        yield LedgerLine(label, level, part, whole.below if index == len(groups) - 1 else None)


def _label(line: LedgerLine, room: int) -> str:
    """The indented path, with its kind if both fit, in exactly `room` cells."""
    start = " " * 2 * line.level + line.label
    kind = clean(line.row.kind) if isinstance(line.row, Row) else ""
    return pad(f"{start} ({kind})" if kind and cell_len(f"{start} ({kind})") <= room else start, room)


def _columns(lines: Sequence[LedgerLine], width: int) -> Columns:
    parts = tuple(p for p in PARTS if any(p in line.row.parts for line in lines))
    room = width - 2 - 2 * NUMBER - 2 - PART * len(parts)
    if room < 24:
        room, parts = room + PART * len(parts), ()
    longest = max(cell_len(_label(line, 1000).rstrip()) for line in lines)
    label = max(min(longest, room - BAR, 44), 14)
    values = [line.row.decades for line in lines if isinstance(line.row, Row)]
    return Columns(label, BarScale.over(values, min(room - label, 44)), parts)


def _heading(columns: Columns, name: str = "") -> Text:
    scale = columns.scale
    left = ("loses" if scale.left > 5 else "").rjust(scale.left - 1)
    cells = pad(f"{left}   {'gains' if scale.right > 5 else ''}", scale.left + scale.right + 1)
    heads = "".join(HEADS[p].rjust(PART) for p in columns.parts)
    label = (pad(name, columns.label + 2), "bold")
    return assemble(label, (f"{'decades':>{NUMBER}}  {cells}{heads}{'total':>{NUMBER}}", "dim"))


def _line(line: LedgerLine, columns: Columns, worst: bool) -> Text:
    row, dim = line.row, "dim" if isinstance(line.row, Fold) else ""
    split = "".join(_cell(row.parts.get(p), PART) for p in columns.parts)
    return assemble(
        (f"  {_label(line, columns.label)}", dim or ("bold" if worst else "")),
        (_cell(row.decades, NUMBER), "bold" if worst else ""),
        "  ",
        *_bar(row, columns.scale),
        (split, "dim"),
        (_cell(line.below, NUMBER), dim),
    )


def _bar(row: Row | Fold, scale: BarScale) -> list[tuple[str, str]]:
    if isinstance(row, Fold):
        mean = f"mean {decades(row.decades / len(row.rows))}" if math.isfinite(row.decades) else ""
        room = scale.left + scale.right + 1
        blank = " " * scale.left + AXIS + " " * scale.right
        return [(mean.center(room) if 0 < len(mean) <= room else blank, "dim")]
    left, right = scale.bar(row.decades)
    return [(left, LOSES), (AXIS, "dim"), (right, GAINS)]


def _total(book: Ledger, columns: Columns) -> Text:
    words = {-math.inf: "no gradient at all"}.get(book.total, "")
    bar = pad(words, columns.scale.left + columns.scale.right + 1)
    return assemble((f"  {pad('total', columns.label)}{_cell(book.total, NUMBER)}  {bar}".rstrip(), "bold"))


def _cell(value: float | None, width: int) -> str:
    if value is None:
        return " " * width
    text = decades(value, 2 if not math.isfinite(value) or abs(value) < 1000 else 0)
    return text.rjust(width) if len(text) < width else f" {value:.0e}"[:width].rjust(width)
