"""A watched training in lines that fit a screen: verdict, curves, what happened when, what was found, notes.

Notable: a run folder and a watch that goes on tell the same story, so they share these lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from unvanish.core.diagnosis import Finding
from unvanish.core.run_facts import HistoryFacts
from unvanish.core.trace import Trace
from unvanish.reports.diagnosis.findings_text import STYLES, describe_briefly, list_followers, write_remedy
from unvanish.reports.parts.screen import fit_screen
from unvanish.reports.parts.sheet import assemble, clip, fit_width, hang, separate
from unvanish.reports.parts.words import cap, clean, plural
from unvanish.reports.run.curves import draw_curves
from unvanish.reports.run.timeline import Moment
from unvanish.reports.run.verdict import RunVerdict, Spotted, rank_spotted

SITES = 4  # of a finding, at most
TONES = {"fine": "bold green", "warning": "bold yellow", "error": "bold red", "unseen": "dim"}


@dataclass(frozen=True)
class RunStory:
    """What a report of a training tells: its name, the verdict, how long it was, and the rest in order."""

    name: str
    verdict: RunVerdict | None
    length: Sequence[str]
    history: HistoryFacts
    trace: Trace
    moments: Sequence[Moment]
    spotted: Sequence[Spotted]
    notes: Sequence[str] = ()
    closing: str = ""
    remarks: Sequence[str] = field(default=())


@dataclass(frozen=True)
class RunDetail:
    """At most so many: findings in full, in brief, remedies of each, moments, notes, lines of a sentence."""

    full: int = 0
    brief: int = 1
    remedies: int = 1
    moments: int = 0
    notes: int = 0
    sentence: int = 1
    airy: bool = False


EVERYTHING = RunDetail(10_000, 0, 3, 10_000, 10_000, 1_000, airy=True)
WISHES: tuple[dict[str, Any], ...] = (
    {"sentence": 2},
    {"full": 1},
    {"notes": 1},
    {"moments": 3},
    {"sentence": 3},
    {"full": 2},
    {"moments": 5},
    {"brief": 3},
    {"airy": True},
    {"notes": 2},
    {"sentence": 4, "remedies": 2},
    {"full": 4},
    {"moments": 8, "notes": 4},
    {"full": 8, "remedies": 3},
)  # of a reader, the most urgent first


def tell(story: RunStory, width: int, height: int, *, verbose: bool = False) -> list[Text]:
    """The story in lines of at most `width` cells, at most `height` of them unless verbose."""
    width = fit_width(width)
    found = list(story.spotted) if verbose else rank_spotted(list(story.spotted))

    def compose(detail: RunDetail) -> list[Text]:
        head, *blocks = _compose(story, found, width, detail)
        if detail.airy:
            return list(separate([head, *blocks]))
        return list(separate([head, [line for block in blocks for line in block]]))

    return compose(EVERYTHING) if verbose else fit_screen(compose, RunDetail(), WISHES, height)


def _compose(story: RunStory, found: Sequence[Spotted], width: int, detail: RunDetail) -> list[list[Text]]:
    return [
        _head(story, width, detail),
        _timeline(story.moments, width, detail),
        _findings(found, width, detail),
        [
            *_notes(story.notes, width, detail),
            *(hang([], story.closing, width, 2, "bold") if story.closing else []),
        ],
    ]


def _head(story: RunStory, width: int, detail: RunDetail) -> list[Text]:
    out = clip(hang([], story.name, width, 2, "bold"), 2)
    if story.verdict is not None:
        sentence = (story.verdict.brief if detail.full else "") or story.verdict.sentence
        lines = hang([("verdict: ", "bold")], sentence, width, 2, TONES[story.verdict.word])
        out += clip(lines, max(detail.sentence, 2))
    for line in story.length:
        out += clip(hang([], line, width, 2, "dim"), 2)
    for curve in draw_curves(story.history, story.trace, width):
        out += clip([assemble(curve[:width])], 1)
    for remark in story.remarks:
        out += clip(hang(["  "], remark, width, 4), 2)
    return out


def _timeline(moments: Sequence[Moment], width: int, detail: RunDetail) -> list[Text]:
    if not moments or not detail.moments:
        return []
    cells = len(str(max(m.step for m in moments)))
    shown, rest = cap(moments, detail.moments)
    out = [assemble(("timeline:", "bold"))]
    for moment in shown:
        style = STYLES.get(moment.severity, "")
        lines = hang([(f"  step {moment.step:>{cells}}  ", "dim")], moment.text, width, cells + 9, style)
        out += clip(lines, detail.sentence)
    return [*out, *([assemble((f"  and {rest} more", "dim"))] if rest else [])]


def _findings(found: Sequence[Spotted], width: int, detail: RunDetail) -> list[Text]:
    out: list[Text] = []
    full, others = found[: detail.full], found[detail.full :]
    for one in full:
        out += describe_finding(one.finding, one.when, width, detail)
    brief, rest = cap(others, detail.brief) if detail.brief else (others, 0)
    for one in brief:
        out += describe_briefly(one.finding, width, 1, one.when)
    return [*out, *([assemble((f"and {plural(rest, 'more finding')}", "bold"))] if rest else [])]


def describe_finding(finding: Finding, when: str, width: int, detail: RunDetail) -> list[Text]:
    """A finding in a few lines: title and cause, places, what follows from it, remedies."""
    out = describe_briefly(finding, width, max(detail.sentence, 2), when)
    if finding.sites:
        more = " ..." if len(finding.sites) > SITES else ""
        places = f"{', '.join(map(clean, finding.sites[:SITES]))}{more}"
        out += clip(hang([("  --> ", "bright_blue")], places, width, 6), detail.sentence)
    out += clip(list_followers(finding, width), detail.sentence)
    for remedy in finding.remedies[: detail.remedies]:
        out += clip(write_remedy(remedy, width), detail.sentence)
    return out


def _notes(notes: Sequence[str], width: int, detail: RunDetail) -> list[Text]:
    if not notes:
        return []
    shown, rest = cap(notes, detail.notes) if detail.notes else ((), len(notes))
    out: list[Text] = []
    for note in shown:
        out += clip(hang([("note: ", "bold cyan")], clean(note), width, 2), detail.sentence)
    if not rest:
        return out
    return [
        *out,
        assemble((f"{'and ' if shown else ''}{plural(rest, 'more note' if shown else 'note')}", "dim")),
    ]
