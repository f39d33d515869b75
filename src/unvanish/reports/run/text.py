"""The report of a watched training as text: verdict, evidence, what happened when, what was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Diagnosis, Finding, at_least
from unvanish.core.run_facts import HistoryFacts
from unvanish.reports.parts.words import clean, plural
from unvanish.reports.run.curves import draw_curves
from unvanish.reports.run.gaps import list_gaps
from unvanish.reports.run.timeline import Moment, list_moments
from unvanish.reports.run.verdict import Spotted, write_verdict
from unvanish.store import Run

LOOKS = 256  # that are read, at most
SITES, REMEDIES = 4, 3  # of a finding, at most
SPANS, RANKS = 4, 16  # of steps in a row, and ranks that lack some, that are named, at most


def render(run: Run) -> str:
    """The report of a run folder, also of a run that still grows."""
    facts, steps, trace = run.facts(), run.steps(), run.trace(most=LOOKS)
    lines = [f"unvanish: run {clean(run.name)}, {clean(facts.get('model', 'a model'))}"]
    if not len(steps["step"]):
        gaps = [f"note: {line}" for line in list_gaps(run)]
        return "\n".join([*lines, "no step has been written yet", *gaps])
    spotted = list_spotted(run)
    verdict = write_verdict(spotted, len(steps["step"]), len(run.sample_steps()))
    lines += [f"verdict: {verdict.sentence}", _describe_length(steps, run, facts.get("overhead"))]
    lines += describe_ranks(run)
    lines += [*draw_curves(steps, trace), *_count_broken(steps), ""]
    lines += write_timeline(list_moments(steps, trace, spotted, facts.get("sessions", ())))
    for s in spotted:
        lines += describe_finding(s.finding, s.when)
    lines += [f"note: {clean(text)}" for text in facts.get("notes", ())]
    lines += [f"note: {line}" for line in list_gaps(run)]
    return "\n".join([*lines, conclude([s.finding for s in spotted])])


def list_spotted(run: Run) -> list[Spotted]:
    """The findings of a run with their steps."""
    return [Spotted(e.finding, e.first, e.last) for e in run.findings()]


def write_timeline(moments: Sequence[Moment]) -> list[str]:
    """What happened, a line each, and a blank one; nothing without a moment."""
    if not moments:
        return []
    width = len(str(max(m.step for m in moments)))
    return ["timeline:", *(f"  step {m.step:>{width}}  {m.text}" for m in moments), ""]


def render_watch(diagnosis: Diagnosis) -> str:
    """The report of a watch that was not written to a folder."""
    history = diagnosis.trace.facts.get("history", {})
    lines = [f"unvanish watch: {clean(diagnosis.subject)}"]
    lines += [*draw_curves(history, diagnosis.trace), ""]
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


def _describe_length(steps: HistoryFacts, run: Run, overhead: Any) -> str:
    """Steps, time, looks, and the overhead of the watch if it is known."""
    numbers, wall = steps["step"], steps["wall"]
    time = format_duration(float(wall[-1] - wall[0]))
    cost = f", watch overhead {float(overhead):.1%}" if overhead not in (None, "nan") else ""
    looks = plural(len(run.sample_steps()), "look")
    return f"{len(numbers):,} steps ({int(numbers[0])} to {int(numbers[-1])}) in {time}, {looks}{cost}"


def _count_broken(steps: HistoryFacts) -> list[str]:
    skipped, broken = int(np.nansum(steps["skipped"])), int((steps["finite"] == 0).sum())
    if not skipped and not broken:
        return []
    return [
        f"{plural(broken, 'step')} with a gradient that is not finite, {skipped} skipped by the loss scaler"
    ]
