"""The report of a watched training as text: loss and gradient over the steps, and what was found when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.core.diagnosis import Diagnosis, Finding, at_least
from unvanish.core.run_facts import HistoryFacts
from unvanish.core.trace import Trace
from unvanish.reports.parts.words import clean, plural
from unvanish.reports.run.gaps import list_gaps
from unvanish.store import Run

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH, LOOKS = 60, 256  # cells of a sparkline, looks that are read at most
SITES, REMEDIES = 4, 3  # of a finding, at most
SPANS, RANKS = 4, 16  # of steps in a row, and ranks that lack some, that are named, at most
DECADE = math.log(10)


def render(run: Run) -> str:
    """The report of a run folder, also of a run that still grows."""
    facts, steps, trace = run.facts(), run.steps(), run.trace(most=LOOKS)
    lines = [f"unvanish: run {clean(run.name)}, {clean(facts.get('model', 'a model'))}"]
    if not len(steps["step"]):
        gaps = [f"note: {line}" for line in list_gaps(run)]
        return "\n".join([*lines, "no step has been written yet", *gaps])
    lines.append(_describe_length(steps, trace, facts.get("overhead")))
    lines += describe_ranks(run)
    lines += [*draw_curves(steps), *draw_flow(trace), *_count_broken(steps), ""]
    events = run.findings()
    for e in events:
        lines += describe_finding(
            e.finding, f"step {e.first}" + (f" to {e.last}" if e.last != e.first else "")
        )
    lines += [f"note: {clean(text)}" for text in facts.get("notes", ())]
    lines += [f"note: {line}" for line in list_gaps(run)]
    return "\n".join([*lines, conclude([e.finding for e in events])])


def render_watch(diagnosis: Diagnosis) -> str:
    """The report of a watch that was not written to a folder."""
    history = diagnosis.trace.facts.get("history", {})
    lines = [f"unvanish watch: {clean(diagnosis.subject)}"]
    lines += [*draw_curves(history), *draw_flow(diagnosis.trace), ""]
    for finding in diagnosis.findings:
        lines += describe_finding(finding)
    return "\n".join([*lines, conclude(diagnosis.findings)])


def conclude(findings: Sequence[Finding]) -> str:
    """The last line: how many findings are at or above a warning, and their codes."""
    faults = at_least(findings, "warning")
    return (
        f"found {len(faults)}: {' '.join(clean(f.code) for f in faults)}"
        if faults
        else "nothing wrong was seen"
    )


def draw_curves(history: HistoryFacts) -> list[str]:
    """The loss and the gradient's norm as sparklines, with their first and last values."""
    lines = []
    loss = np.asarray(history.get("loss", ()), np.float64)
    known = loss[np.isfinite(loss)]
    if len(known):
        lines.append(f"  loss      {draw_spark(loss)}  {known[0]:.4g} to {known[-1]:.4g}")
    norms = np.asarray(history.get("norm_log", ()), np.float64) / DECADE
    known = norms[np.isfinite(norms)]
    if len(known):
        ends = f"1e{known[0]:.1f} to 1e{known[-1]:.1f}, norm of all parameters"
        lines.append(f"  gradient  {draw_spark(norms)}  {ends}")
    return lines


def draw_flow(trace: Trace) -> list[str]:
    """The gain of the gradient from the loss to the input, at each look, decades."""
    gains = measure_flow(trace)
    known = gains[np.isfinite(gains)]
    if not len(known):
        return []
    ends = f"{known[0]:+.1f} to {known[-1]:+.1f} decades from the loss to the input"
    return [f"  depth     {draw_spark(gains)}  {ends}"]


def measure_flow(trace: Trace) -> NDArray[np.float64]:
    """log10 of the gradient's gain from the first to the last site of the depth axis, shape (looks,)."""
    axis = trace.depth()
    if axis is None or not trace.values.size:
        return np.full(trace.values.shape[0], math.nan)
    logs = trace.values[:, list(axis.sites), trace.statistics.index("backward_log")]
    with np.errstate(invalid="ignore"):
        gains: NDArray[np.float64] = (logs[:, -1] - logs[:, 0]) / DECADE
    return gains


def draw_spark(values: NDArray[np.float64], width: int = WIDTH) -> str:
    """A sparkline; an infinite value is an x, a value that is not a number is a blank."""
    if len(values) > width:
        values = np.array([_median(piece) for piece in np.array_split(values, width)])
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    span = high - low or 1.0
    return "".join(
        BLOCKS[1 + round((v - low) / span * 7)] if math.isfinite(v) else " " if math.isnan(v) else "x"
        for v in values
    )


def describe_finding(finding: Finding, when: str = "") -> list[str]:
    """A finding in a few lines."""
    at = f" ({when})" if when else ""
    named = f"{finding.severity}[{clean(finding.code)}] {clean(finding.name)}"
    lines = [f"{named}{at}: {clean(finding.cause)}"]
    if finding.sites:
        more = " ..." if len(finding.sites) > SITES else ""
        lines.append(f"  --> {', '.join(map(clean, finding.sites[:SITES]))}{more}")
    return lines + [
        f"  = remedy [{r.safety}] {clean(r.cure)}: {clean(r.why)}" for r in finding.remedies[:REMEDIES]
    ]


def format_duration(seconds: float) -> str:
    """Seconds for people: 42 s, 3 min 20 s, 2 h 5 min."""
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def describe_ranks(run: Run) -> list[str]:
    """How many ranks trained together, and which steps some of them lack; nothing of one process."""
    facts = run.facts()
    if "rank" not in facts or not facts.get("sessions"):
        return []
    lines = [f"{plural(facts['sessions'][-1][1], 'rank')} trained together, and their steps are joined"]
    relayed = [f"rank {rank}" for rank in facts.get("relayed", [])]
    if relayed:
        lines.append(f"{', '.join(relayed)}: from another folder, through the process group's store")
    lacking = run.lacking()
    for rank, absent in list(lacking.items())[:RANKS]:
        spans = ", ".join(_name_spans(absent))
        lines.append(f"rank {rank} has no record of {plural(len(absent), 'step')}: {spans}")
    if len(lacking) > RANKS:
        lines.append(f"{plural(len(lacking) - RANKS, 'more rank')}: steps without a record, too")
    return lines


def _name_spans(steps: Sequence[int]) -> list[str]:
    """Numbers in a row as spans: 3 to 5, 9; at most `SPANS`."""
    edges = [i for i in range(1, len(steps)) if steps[i] != steps[i - 1] + 1]
    pieces = [
        (steps[a], steps[b - 1]) for a, b in zip([0, *edges], [*edges, len(steps)], strict=True) if b > a
    ]
    named = [str(first) if first == last else f"{first} to {last}" for first, last in pieces]
    return named if len(named) <= SPANS else [*named[:SPANS], "..."]


def _describe_length(steps: HistoryFacts, trace: Trace, overhead: Any) -> str:
    """Steps, time, looks, and the overhead of the watch if it is known."""
    numbers, wall = steps["step"], steps["wall"]
    time = format_duration(float(wall[-1] - wall[0]))
    cost = f", watch overhead {float(overhead):.1%}" if overhead not in (None, "nan") else ""
    looks = plural(trace.values.shape[0], "look")
    return f"{len(numbers):,} steps ({int(numbers[0])} to {int(numbers[-1])}) in {time}, {looks}{cost}"


def _count_broken(steps: HistoryFacts) -> list[str]:
    skipped, broken = int(np.nansum(steps["skipped"])), int((steps["finite"] == 0).sum())
    if not skipped and not broken:
        return []
    return [
        f"{plural(broken, 'step')} with a gradient that is not finite, {skipped} skipped by the loss scaler"
    ]


def _median(piece: NDArray[np.float64]) -> float:
    if np.isinf(piece).any():
        return math.inf
    known = piece[np.isfinite(piece)]
    return float(np.median(known)) if len(known) else math.nan
