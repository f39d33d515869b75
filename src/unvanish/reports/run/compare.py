"""Two runs side by side: their losses, their gradients, and what was found in each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unvanish.core.run_facts import HistoryFacts
from unvanish.core.trace import Trace
from unvanish.reports.parts.cell import render_cell
from unvanish.reports.parts.markup import tag
from unvanish.reports.parts.words import clean
from unvanish.reports.run.curves import draw_spark, measure_flow, read_norms
from unvanish.reports.run.gaps import list_gaps
from unvanish.reports.run.text import LOOKS, format_duration
from unvanish.store import Run, RunPair
from unvanish.store.reader import Event

TITLE, WIDTH = 26, 30  # cells
DECADE = math.log(10)


@dataclass(frozen=True)
class Lines:
    """A comparison before its layout: names of both runs, rows of a title and two cells, notes."""

    names: tuple[str, str]
    rows: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]


def compare(first: Run, second: Run) -> str:
    """A table of both runs, and the findings of each."""
    return render(RunPair(first, second)).rstrip("\n")


def render(pair: RunPair) -> str:
    """The same of a pair, as plain text."""
    found = _read(pair)
    lines = [_row("", found.names), *(_row(title, cells) for title, *cells in found.rows)]
    return "\n".join([*lines, *found.notes]) + "\n"


def fragment(pair: RunPair) -> str:
    """The same as a table, with its own style, for a notebook."""
    found = _read(pair)
    heads = tag("tr", tag("th"), [tag("th", name, scope="col") for name in found.names])
    rows = [
        tag("tr", tag("th", title, scope="row"), [tag("td", tag("code", cell)) for cell in cells])
        for title, *cells in found.rows
    ]
    table = tag("div", tag("table", tag("thead", heads), tag("tbody", rows)), class_="uv-evidence")
    notes = [tag("p", note, class_="uv-quiet") for note in found.notes]
    return render_cell([tag("h3", "Two runs"), table, notes])


def _read(pair: RunPair) -> Lines:
    """Everything that is compared."""
    runs = (pair.first, pair.second)
    steps, traces = [r.steps() for r in runs], [r.trace(most=LOOKS) for r in runs]
    names = [r.name for r in runs]
    if names[0] == names[1]:
        names = [str(r.folder) for r in runs]
    rows: list[tuple[str, str, str]] = []

    def row(title: str, describe: Callable[[HistoryFacts, Trace], str]) -> None:
        first, second = (
            describe(s, t) if len(s["step"]) else "-" for s, t in zip(steps, traces, strict=True)
        )
        rows.append((title, first, second))

    row("steps", lambda s, _: f"{len(s['step']):,} in {format_duration(s['wall'][-1] - s['wall'][0])}")
    row("loss", lambda s, _: draw_spark(s["loss"], WIDTH))
    row("  first, best, last", lambda s, _: _loss(s["loss"]))
    row("gradient norm", lambda s, _: draw_spark(read_norms(s), WIDTH))
    row("  median, decades", lambda s, _: _median(s["norm_log"] / DECADE))
    row("decades, loss to input", lambda _, t: draw_spark(measure_flow(t), WIDTH))
    row("  first, last", lambda _, t: _ends(measure_flow(t)))
    row("update / weight, median", lambda _, t: _update(t))
    row("steps not finite", lambda s, _: str(int((s["finite"] == 0).sum())))
    row("steps clipped", lambda s, _: _share(s["clipped"]))
    if any("rank" in r.facts() for r in runs):
        rows.append(("ranks", _count_ranks(runs[0]), _count_ranks(runs[1])))
    notes = [
        f"note: {name}: {line}" for name, run in zip(names, runs, strict=True) for line in list_gaps(run)
    ]
    found = _compare_findings(*runs)
    nothing = [] if found else ["nothing wrong was seen in either"]
    return Lines((clean(names[0]), clean(names[1])), (*rows, *found), (*nothing, *notes))


def _count_ranks(run: Run) -> str:
    sessions = run.facts().get("sessions")
    absent = sum(map(len, run.lacking().values()))
    return f"{sessions[-1][1] if sessions else 1}" + (f", {absent} steps of a rank lacking" if absent else "")


def _compare_findings(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """For each code the step at which each run first had it."""
    events = [{e.finding.code: e for e in run.findings()} for run in (first, second)]

    def tell(event: Event | None) -> str:
        return "-" if event is None else f"step {event.first}, {event.finding.severity}"

    codes = sorted({*events[0], *events[1]})
    return [(clean(code), tell(events[0].get(code)), tell(events[1].get(code))) for code in codes]


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title.ljust(TITLE)}{cells[0].ljust(WIDTH + 2)}{cells[1]}"


def _known(values: Any) -> Any:
    return values[np.isfinite(values)]


def _loss(values: Any) -> str:
    known = _known(values)
    return f"{known[0]:.4g}  {known.min():.4g}  {known[-1]:.4g}" if len(known) else "unknown"


def _median(values: Any) -> str:
    known = _known(values)
    return f"{np.median(known):.2f}" if len(known) else "-"


def _ends(values: Any) -> str:
    known = _known(values)
    return f"{known[0]:+.2f}  {known[-1]:+.2f}" if len(known) else "-"


def _update(trace: Trace) -> str:
    if "update_log" not in trace.statistics or not trace.values.size:
        return "-"
    known = _known(trace.values[:, :, trace.statistics.index("update_log")])
    return f"{math.exp(float(np.median(known))):.1e}" if len(known) else "-"


def _share(values: Any) -> str:
    known = _known(values)
    return f"{known.mean():.0%}" if len(known) else "unknown"
