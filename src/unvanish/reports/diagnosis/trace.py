"""A trace alone: what was measured, in numbers; its curves and a table of its depth axis in a notebook."""

from __future__ import annotations

import math
from collections import Counter

from rich.text import Text

from unvanish.core.trace import Trace
from unvanish.reports.parts.cell import render_cell
from unvanish.reports.parts.figures import draw_depth
from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.series import LN10, DepthSeries, read_depth
from unvanish.reports.parts.sheet import SCREEN, assemble, fit_width, hang, join_lines, pad
from unvanish.reports.parts.words import clean, decades, number, plural

ROWS = 400  # of the table in a notebook
COLUMNS = ("forward_rms", "saturated", "dead", "cosine")  # beside the gradient
HEADS = ("gradient", "rms", "saturated", "dead", "cosine")


def render(trace: Trace, width: int = 80, height: int = SCREEN) -> str:
    """The depth axis as a table of at most `height` lines; what it leaves out is counted."""
    width, places = fit_width(width), _list_places(trace)
    lines: list[Text] = hang([("trace: ", "bold")], describe_trace(trace), width, 2)
    room = height - len(lines) - 2
    if places and room > 2:
        label = width - 9 * len(HEADS) - 2
        heads = "".join(f"{head:>9}" for head in HEADS)
        lines.append(assemble(f"  {pad('from the loss', label)}{heads}"))
        step = max(math.ceil(len(places) / room), 1)
        for place in places[::step]:
            cells = "".join(f"{text:>9}" for text in _list_cells(trace, place))
            lines.append(assemble(f"  {pad(clean(trace.sites[place].label), label)}{cells}"))
        if step > 1:
            lines.append(assemble(f"  (each {step}th of {len(places)} places)"))
    return join_lines(lines)


def describe_trace(trace: Trace) -> str:
    """How many places of each kind were measured, how often, and with which numbers."""
    roles = Counter(site.role for site in trace.sites)
    kinds = ", ".join(f"{count} {role}{'s' if count > 1 else ''}" for role, count in roles.items())
    looks = plural(int(trace.values.shape[0]), "look")
    return f"{kinds or 'no places'}; {looks}, {plural(len(trace.statistics), 'statistic')} each"


def fragment(trace: Trace) -> str:
    """The curves along the depth and the table, with their own style."""
    head = [tag("h3", "Trace"), tag("p", f"{describe_trace(trace)}.", class_="uv-quiet")]
    curves = read_depth(trace)
    if curves is None:
        return render_cell([*head, tag("p", "It has no depth axis.")])
    return render_cell([*head, tag("figure", draw_depth(curves)), _draw_table(trace, curves)])


def _draw_table(trace: Trace, curves: DepthSeries) -> Html:
    places = _list_places(trace)
    heads = tag("tr", [tag("th", head, scope="col") for head in ("from the loss", "kind", *HEADS)])
    rows = [
        tag(
            "tr",
            tag("th", tag("code", clean(trace.sites[i].label)), scope="row"),
            tag("td", trace.sites[i].kind),
            [tag("td", cell, class_="uv-num") for cell in _list_cells(trace, i)],
        )
        for i in places[:ROWS]
    ]
    more = f"the first {ROWS} of {len(places)}" if len(places) > ROWS else f"{len(places)} places"
    table = tag("div", tag("table", tag("thead", heads), tag("tbody", rows)), class_="uv-evidence")
    return tag("details", tag("summary", f"All places along the depth ({more})"), table)


def _list_places(trace: Trace) -> list[int]:
    axis = trace.depth()
    return list(axis.sites) if axis is not None and trace.values.size else []


def _list_cells(trace: Trace, place: int) -> list[str]:
    """The gradient in decades, then each of `COLUMNS`; empty if not measured."""
    log = trace.value(place, "backward_log") / LN10
    return [_write(log, decades(log)), *(_write(v, number(_round(v))) for v in _read(trace, place))]


def _read(trace: Trace, place: int) -> list[float]:
    return [trace.value(place, statistic) for statistic in COLUMNS]


def _round(value: float) -> float:
    return float(f"{value:.3g}") if math.isfinite(value) else value


def _write(value: float, text: str) -> str:
    return "" if math.isnan(value) else text
