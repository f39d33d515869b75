"""Two runs side by side, as text: their losses, their gradients, and what was found in each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unvanish.core.run_facts import HistoryFacts
from unvanish.core.trace import Trace
from unvanish.reports.parts.words import clean
from unvanish.reports.run.curves import draw_spark, measure_flow
from unvanish.reports.run.gaps import list_gaps
from unvanish.reports.run.text import LOOKS, format_duration
from unvanish.store import Run

TITLE, WIDTH = 26, 30  # cells
DECADE = math.log(10)


def compare(first: Run, second: Run) -> str:
    """A table of both runs, and the findings of each."""
    runs = (first, second)
    steps, traces = [r.steps() for r in runs], [r.trace(most=LOOKS) for r in runs]
    names = [r.name for r in runs]
    if names[0] == names[1]:
        names = [str(r.folder) for r in runs]
    lines = [_row("", [clean(name) for name in names])]

    def row(title: str, describe: Callable[[HistoryFacts, Trace], str]) -> None:
        cells = [describe(s, t) if len(s["step"]) else "-" for s, t in zip(steps, traces, strict=True)]
        lines.append(_row(title, cells))

    row("steps", lambda s, _: f"{len(s['step']):,} in {format_duration(s['wall'][-1] - s['wall'][0])}")
    row("loss", lambda s, _: draw_spark(s["loss"], WIDTH))
    row("  first, best, last", lambda s, _: _loss(s["loss"]))
    row("gradient norm", lambda s, _: draw_spark(s["norm_log"], WIDTH))
    row("  median, decades", lambda s, _: _median(s["norm_log"] / DECADE))
    row("decades, loss to input", lambda _, t: draw_spark(measure_flow(t), WIDTH))
    row("  first, last", lambda _, t: _ends(measure_flow(t)))
    row("update / weight, median", lambda _, t: _update(t))
    row("steps not finite", lambda s, _: str(int((s["finite"] == 0).sum())))
    row("steps clipped", lambda s, _: _share(s["clipped"]))
    if any("rank" in r.facts() for r in runs):
        lines.append(_row("ranks", [_count_ranks(run) for run in runs]))
    notes = [
        f"note: {name}: {line}" for name, run in zip(names, runs, strict=True) for line in list_gaps(run)
    ]
    return "\n".join([*lines, *_compare_findings(first, second), *notes])


def _count_ranks(run: Run) -> str:
    sessions = run.facts().get("sessions")
    absent = sum(map(len, run.lacking().values()))
    return f"{sessions[-1][1] if sessions else 1}" + (f", {absent} steps of a rank lacking" if absent else "")


def _compare_findings(first: Run, second: Run) -> list[str]:
    """For each code the step at which each run first had it."""
    events = [{e.finding.code: e for e in run.findings()} for run in (first, second)]
    if not any(events):
        return ["nothing wrong was seen in either"]
    return [
        _row(
            clean(code),
            [f"step {e[code].first}, {e[code].finding.severity}" if code in e else "-" for e in events],
        )
        for code in sorted({*events[0], *events[1]})
    ]


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
