"""What a watch has seen, in a screen: verdict, evidence, findings with their steps, notes."""

from __future__ import annotations

import math

from rich.console import Console
from rich.text import Text

from unvanish.core.sight import Sight
from unvanish.reports.parts import sheet
from unvanish.reports.parts.sheet import fit_height, join_lines, print_lines
from unvanish.reports.parts.words import clean, plural
from unvanish.reports.run.lines import RunStory, tell
from unvanish.reports.run.timeline import list_moments
from unvanish.reports.run.verdict import RunVerdict, Spotted, rank_spotted, write_verdict


def render(sight: Sight, width: int = 80, height: int = sheet.SCREEN, *, verbose: bool = False) -> str:
    """The report as plain text."""
    return join_lines(write_lines(sight, width, height, verbose=verbose))


def print_report(sight: Sight, console: Console | None = None, *, verbose: bool = False) -> None:
    """Print to a console, stdout by default."""
    console = console or Console(highlight=False)
    print_lines(write_lines(sight, console.width, fit_height(console), verbose=verbose), console)


def write_lines(sight: Sight, width: int, height: int, *, verbose: bool = False) -> list[Text]:
    """The report as styled lines, at most `height` unless verbose."""
    return tell(tell_story(sight), width, height, verbose=verbose)


def tell_story(sight: Sight) -> RunStory:
    """What the watch has seen, in order."""
    trace, spotted = sight.diagnosis.trace, list_worst(sight)
    history = trace.facts.get("history", {})
    return RunStory(
        f"unvanish watch: {clean(sight.diagnosis.subject)}",
        judge(sight),
        [describe_sight(sight)],
        history,
        trace,
        list_moments(history, trace, spotted),
        spotted,
        sight.notes,
    )


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
