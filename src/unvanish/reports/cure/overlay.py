"""Before and after of a cure over each other: the gradient by depth, and both ledgers in one table.

Notable: before and after differ by dash, by place and by name, never by colour alone.
"""

from __future__ import annotations

import math

import numpy as np

from unvanish.core.cured import Cured
from unvanish.core.ledger import Ledger, Row, ledger
from unvanish.reports.cure.pairs import Pair, Stretch, fold_pairs, is_known, list_totals, match_ledgers
from unvanish.reports.diagnosis.ledger_html import Span
from unvanish.reports.parts.figures import Series, draw_series
from unvanish.reports.parts.legend import draw_legend
from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.words import clean, decades

INSIDE = 300  # pairs shown in a stretch that is opened
CAPTION = (
    "The gradient by depth before and after the cure, in decades, from the loss (left) to the input (right)"
)


def match_cured(cured: Cured) -> list[Pair]:
    """The rows of both diagnoses; empty unless both have a depth axis."""
    books = [ledger(d.trace) if d.trace.values.size else None for d in (cured.before, cured.after)]
    if not all(book is not None and book.rows for book in books):
        return []
    before, after = books
    assert before is not None and after is not None
    return match_ledgers(before, after)


def draw_overlay(pairs: list[Pair]) -> Html | None:
    """Both curves in one figure."""
    both = [np.array(list_totals(pairs, side)) for side in (0, 1)]
    if not all(is_known(list(totals)) for totals in both):
        return None
    names = ["loss", *(pair.rows[-1].path or "(model)" for pair in pairs)]
    series = [Series("before", both[0], "before"), Series("after", both[1], "after")]
    return draw_series(series, names, CAPTION, ("loss", "input"))


def draw_table(pairs: list[Pair]) -> Html:
    """Both ledgers in one: for each row the bar before above the bar after."""
    rows = [row for pair in pairs for row in pair.rows]
    span = Span.of(Ledger("both", tuple(rows)))
    legend = draw_legend(("before", "before"), ("after", "after"))
    lines = [_entry(item, span) for item in fold_pairs(pairs)]
    total = _line(
        tag("b", "to the input"), (None, None), pairs[-1].totals, pairs[-1].totals, span, "uv-row uv-total"
    )
    table = tag("div", _heading(span), lines, total, class_="uv-ledger uv-pairs")
    return tag("div", legend, table)


def _entry(item: Pair | Stretch, span: Span) -> Html:
    if isinstance(item, Pair):
        return tag("div", _cells(item, span), class_="uv-row")
    first, last = (clean(item.pairs[i].rows[-1].path) or "(model)" for i in (0, -1))
    label = Html(f"{tag('code', f'{first} to {last}')}{tag('i', f'{len(item.pairs)} rows')}")
    head = _line(label, (None, None), item.decades, item.totals, span, "uv-row", name="summary")
    shown = [_entry(pair, span) for pair in item.pairs[:INSIDE]]
    rest = len(item.pairs) - len(shown)
    more = tag("p", f"and {rest} more rows", class_="uv-more") if rest else None
    return tag("details", head, tag("div", shown, more))


def _cells(pair: Pair, span: Span) -> list[Html]:
    return _columns(_label(pair), (pair.before, pair.after), _list_decades(pair), pair.totals, span)


def _list_decades(pair: Pair) -> tuple[float | None, float | None]:
    before, after = pair.before, pair.after
    return (None if before is None else before.decades, None if after is None else after.decades)


def _line(
    label: Html,
    rows: tuple[Row | None, Row | None],
    values: tuple[float, float],
    totals: tuple[float, float],
    span: Span,
    style: str,
    name: str = "div",
) -> Html:
    return tag(name, _columns(label, rows, values, totals, span), class_=style)


def _columns(
    label: Html,
    rows: tuple[Row | None, Row | None],
    values: tuple[float | None, float | None],
    totals: tuple[float, float],
    span: Span,
) -> list[Html]:
    bars = [
        _bar(value, total, span, style)
        for value, total, style in zip(values, totals, ("before", "after"), strict=True)
    ]
    numbers = [tag("b", "" if value is None else decades(value), class_="uv-num") for value in values]
    zero = f"--zero:{span.share(0.0):.2f}%"
    track = tag("span", bars, class_="uv-track", aria_hidden="true", style=zero)
    return [tag("span", label, class_="uv-label"), track, *numbers]


def _label(pair: Pair) -> Html:
    row = pair.rows[-1]
    old = pair.before.kind if pair.before is not None else ""
    changed = bool(old) and pair.after is not None and old != row.kind
    kind = f"{old} → {row.kind}" if changed else row.kind
    note = {True: " new", False: ""}[pair.before is None] + (" taken out" if pair.after is None else "")
    name = tag("code", clean(row.path) or "(model)", title=row.path)
    return Html(f"{name}{tag('i', kind + note)}")


def _bar(value: float | None, total: float, span: Span, style: str) -> Html | None:
    if value is None or math.isnan(value) or math.isnan(total):
        return None
    start = total - value if math.isfinite(value) and math.isfinite(total) else 0.0
    end = start + value
    a, b = sorted((span.share(start), span.share(end)))
    return tag("i", class_=f"uv-{style}", style=f"left:{a:.2f}%;width:{b - a:.2f}%")


def _heading(span: Span) -> Html:
    scale = [tag("i", f"{mark:g}", style=f"left:{span.share(mark):.2f}%") for mark in span.marks]
    cells = [
        tag("span", "from the loss", class_="uv-label"),
        tag("span", scale, class_="uv-scale", aria_hidden="true"),
        tag("span", "before", class_="uv-num"),
        tag("span", "after", class_="uv-num"),
    ]
    return tag("div", cells, class_="uv-row uv-heads")
