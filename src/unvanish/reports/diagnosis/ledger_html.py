"""The ledger as a waterfall: each bar starts where the one above it ended, so the eye adds up the total.

Notable:
- Blocks and folded runs open in place (`<details>`), without a script; all rows are there, up to a cap.
- A bar's colour repeats what its direction and its signed number say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unvanish.core.ledger import Ledger, Row
from unvanish.reports.parts.figures import choose_ticks, widen
from unvanish.reports.parts.fold import Fold, fold, size
from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.series import clip_curve
from unvanish.reports.parts.words import clean, decades

INSIDE = 300  # rows shown inside a row
SMALL = 0.005  # decades below which a part is left out


@dataclass(frozen=True)
class Span:
    """The decades that the bars' column covers."""

    low: float
    high: float
    marks: tuple[float, ...]

    @classmethod
    def of(cls, book: Ledger) -> Span:
        """From the lowest running total to the highest, with round ticks."""
        reached = [v for row in _every(book.rows) for v in (row.below, row.below - row.decades)]
        known = clip_curve(np.array([0.0, *(v for v in reached if math.isfinite(v))]))
        low, high = widen(float(known.min()), float(known.max()))
        return cls(low, high, tuple(choose_ticks(low, high, wanted=5)[1]))

    def share(self, value: float) -> float:
        """Percent of the width at a number of decades; infinities lie on the edges."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0) * 100


def draw_waterfall(book: Ledger) -> Html:
    """The whole ledger, from the loss to the input, with its total."""
    span = Span.of(book)
    whole = sum(size(row.decades) for row in book.rows)
    rows = [_entry(item, span, 0, whole) for item in fold(book.rows, budget=40, worst=8)]
    return tag("div", _heading(span), rows, _total(book, span), class_="uv-ledger")


def _every(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        yield row
        yield from _every(row.children)


def _entry(item: Row | Fold, span: Span, level: int, whole: float) -> Html:
    """A row; one with rows inside can be opened, and is open if it holds a third of the whole."""
    inside = item.rows if isinstance(item, Fold) else item.children
    if not inside:
        return tag("div", _cells(item, span, level), class_="uv-row")
    shown = [_entry(row, span, level + 1, whole) for row in inside[:INSIDE]]
    rest = len(inside) - len(shown)
    more = tag("p", f"and {rest} more rows, in the JSON report", class_="uv-more") if rest else None
    heavy = isinstance(item, Row) and 0 < whole / 3 <= size(item.decades) < math.inf
    head = tag("summary", _cells(item, span, level), class_="uv-row")
    return tag("details", head, tag("div", shown, more), open="open" if heavy else None)


def _cells(item: Row | Fold, span: Span, level: int) -> list[Html]:
    pad = f"padding-left:{1.2 + 1.1 * level:.1f}rem"
    return [
        tag("span", _label(item), class_="uv-label", style=pad),
        tag("span", _bar(item, span), class_="uv-track", aria_hidden="true", style=_lines(span)),
        tag("b", decades(item.decades), class_="uv-num"),
        tag("span", _split(item), class_="uv-split"),
        tag("span", decades(item.below), class_="uv-num uv-sum"),
    ]


def _label(item: Row | Fold) -> list[Html]:
    if isinstance(item, Row):
        return [tag("code", clean(item.path) or "(model)", title=item.path), tag("i", item.kind)]
    kinds = ", ".join(f"{len(part.rows)} {kind}" for kind, part in item.by_kind.items() if kind)
    return [tag("em", f"{len(item.rows)} more{f': {kinds}' if kinds else ' rows'}")]


def _bar(item: Row | Fold, span: Span) -> Html | None:
    end = item.below
    start = end - item.decades if math.isfinite(end) and math.isfinite(item.decades) else _start(item)
    if math.isnan(item.decades) or not math.isfinite(start):
        return None
    a, b = sorted((span.share(start), span.share(start + item.decades)))
    style = "uv-void" if math.isinf(item.decades) else "uv-loss" if item.decades < 0 else "uv-gain"
    return tag("i", class_=style, style=f"left:{a:.2f}%;width:{b - a:.2f}%")


def _start(item: Row | Fold) -> float:
    """The start of a row without a finite end: 0 for an infinite row, which is drawn across the column."""
    return math.nan if math.isnan(item.decades) else 0.0 if size(item.decades) == math.inf else math.nan


def _lines(span: Span) -> str:
    return f"--zero:{span.share(0.0):.2f}%"


def _split(item: Row | Fold) -> list[Html]:
    parts = [(name, v) for name, v in item.parts.items() if not abs(v) < SMALL]
    if len(parts) == 1:
        return [tag("span", parts[0][0])]
    return [tag("span", f"{name} {decades(v)}") for name, v in parts]


def _heading(span: Span) -> Html:
    scale = [tag("i", f"{mark:g}", style=f"left:{span.share(mark):.2f}%") for mark in span.marks]
    cells = [
        tag("span", "from the loss", class_="uv-label"),
        tag("span", scale, class_="uv-scale", aria_hidden="true"),
        tag("span", "decades", class_="uv-num"),
        tag("span", "made of", class_="uv-split"),
        tag("span", "total", class_="uv-num"),
    ]
    return tag("div", cells, class_="uv-row uv-heads")


def _total(book: Ledger, span: Span) -> Html:
    whole = Fold((Row("", "", book.total, {}, (), book.total),))
    words = "no gradient at all" if book.total == -math.inf else "to the input"
    cells = [
        tag("span", tag("b", words), class_="uv-label"),
        tag("span", _bar(whole, span), class_="uv-track", aria_hidden="true", style=_lines(span)),
        tag("b", decades(book.total), class_="uv-num"),
        tag("span", class_="uv-split"),
        tag("b", decades(book.total), class_="uv-num uv-sum"),
    ]
    return tag("div", cells, class_="uv-row uv-total")
