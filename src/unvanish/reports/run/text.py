"""The report of a watched training as text: verdict, evidence, what happened when, what was found.

Notable: it fits a screen; `verbose` lists all moments, findings and notes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from unvanish.core.diagnosis import Diagnosis, Finding, at_least
from unvanish.core.run_facts import HistoryFacts
from unvanish.reports.parts import sheet
from unvanish.reports.parts.sheet import fit_height, join_lines, print_lines
from unvanish.reports.parts.words import clean, list_names, plural
from unvanish.reports.run.gaps import list_gaps
from unvanish.reports.run.lines import RunStory, tell
from unvanish.reports.run.timeline import list_moments
from unvanish.reports.run.verdict import Spotted, write_verdict
from unvanish.store import Run

LOOKS = 256  # that are read, at most
SPANS, RANKS = 4, 16  # of steps in a row, and ranks that lack some, that are named, at most


def render(run: Run, width: int = 80, height: int = sheet.SCREEN, *, verbose: bool = False) -> str:
    """The report of a run folder, also of a run that still grows."""
    return join_lines(tell(read_story(run), width, height, verbose=verbose))


def print_report(run: Run, console: Console | None = None, *, verbose: bool = False) -> None:
    """Print to a console, stdout by default."""
    console = console or Console(highlight=False)
    print_lines(tell(read_story(run), console.width, fit_height(console), verbose=verbose), console)


def read_story(run: Run) -> RunStory:
    """What the record of a run tells."""
    facts, steps, trace = run.facts(), run.steps(), run.trace(most=LOOKS)
    name = f"unvanish: run {clean(run.name)}, {clean(facts.get('model', 'a model'))}"
    gaps = list_gaps(run)
    if not len(steps["step"]):
        return RunStory(name, None, ["no step has been written yet"], steps, trace, (), (), gaps)
    spotted = list_spotted(run)
    return RunStory(
        name,
        write_verdict(spotted, len(steps["step"]), len(run.sample_steps())),
        [_describe_length(steps, run, facts.get("overhead")), *describe_ranks(run)],
        steps,
        trace,
        list_moments(steps, trace, spotted, facts.get("sessions", ())),
        spotted,
        [*facts.get("notes", ()), *gaps],
        conclude([s.finding for s in spotted]),
        _count_broken(steps),
    )


def list_spotted(run: Run) -> list[Spotted]:
    """The findings of a run with their steps."""
    return [Spotted(e.finding, e.first, e.last) for e in run.findings()]


def render_watch(diagnosis: Diagnosis, width: int = 80, height: int = sheet.SCREEN) -> str:
    """The report of a watch that was not written to a folder."""
    history = diagnosis.trace.facts.get("history", {})
    spotted = [Spotted(finding) for finding in diagnosis.findings]
    name, closing = f"unvanish watch: {clean(diagnosis.subject)}", conclude(diagnosis.findings)
    story = RunStory(name, None, (), history, diagnosis.trace, (), spotted, closing=closing)
    return join_lines(tell(story, width, height)).rstrip("\n")


def conclude(findings: Sequence[Finding]) -> str:
    """The last line: how many findings are at or above a warning, and their codes."""
    faults = at_least(findings, "warning")
    return (
        f"found {len(faults)}: {list_names([f.code for f in faults], 12)}"
        if faults
        else "nothing wrong was seen"
    )


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
