"""What a watch has seen, in a screen: verdict, evidence, findings with their steps, notes."""

from __future__ import annotations

import math

from rich.console import Console

from unvanish.core.sight import Sight
from unvanish.reports.parts.words import cap, clean, plural
from unvanish.reports.run.curves import draw_curves
from unvanish.reports.run.text import describe_finding, write_timeline
from unvanish.reports.run.timeline import list_moments
from unvanish.reports.run.verdict import RunVerdict, Spotted, rank_spotted, write_verdict

FINDINGS, NOTES = 4, 4  # at most: shown in full, notes


def render(sight: Sight) -> str:
    """The report as plain text."""
    subject = clean(sight.diagnosis.subject)
    lines = [f"unvanish watch: {subject}", f"verdict: {judge(sight).sentence}", describe_sight(sight)]
    trace = sight.diagnosis.trace
    history = trace.facts.get("history", {})
    spotted = list_worst(sight)
    lines += [*draw_curves(history, trace), ""]
    lines += write_timeline(list_moments(history, trace, spotted))
    shown, rest = cap(spotted, FINDINGS)
    for one in shown:
        lines += describe_finding(one.finding, one.when)
    lines += [f"and {plural(rest, 'more finding')}: .diagnosis() has all"] if rest else []
    notes, hidden = cap(sight.notes, NOTES)
    lines += [f"note: {clean(text)}" for text in notes]
    lines += [f"and {plural(hidden, 'more note')}: .notes has all"] if hidden else []
    return "\n".join(lines).rstrip() + "\n"


def print_report(sight: Sight, console: Console | None = None) -> None:
    """Print to a console, stdout by default."""
    (console or Console(highlight=False)).print(render(sight), end="", markup=False, soft_wrap=True)


def judge(sight: Sight) -> RunVerdict:
    """The verdict; a watch that failed says so first."""
    if sight.failure:
        return RunVerdict("unseen", f"the watch itself failed and took itself off: {clean(sight.failure)}")
    return write_verdict(list_worst(sight), sight.steps, sight.looks)


def list_worst(sight: Sight) -> list[Spotted]:
    """The findings with their steps, the worst first."""
    found = sight.diagnosis.findings
    return rank_spotted([Spotted(f, *sight.spans.get(f.code, (-1, -1))) for f in found])


def describe_sight(sight: Sight) -> str:
    """Steps, looks and what they cost, as a line."""
    cost = "" if math.isnan(sight.overhead) else f", watch overhead {sight.overhead:.1%}"
    steps = f"{sight.steps:,} step" + ("s" if sight.steps != 1 else "")
    return f"{steps}, {plural(sight.looks, 'look')}{cost}"
