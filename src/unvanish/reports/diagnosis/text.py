"""The report for terminals, in the form of a compiler's messages: what, where, the numbers, why, what to do.

Notable:
- It fits a screen: the finding, its numbers, the ledger, the remedies; what passed and what did not apply are
  counts. `verbose` lists everything.
- `render` gives plain text for files and `print()`; `print_report` adds colours on a terminal.
- Every line fits the width (60 to 100 cells), so the terminal wraps nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.core.ledger import Ledger
from unvanish.reports.diagnosis.closing_text import close_report
from unvanish.reports.diagnosis.detail import WHOLE, WISHES, Detail
from unvanish.reports.diagnosis.findings_text import STYLES, describe_briefly, describe_finding
from unvanish.reports.diagnosis.headline import Headline, find_ledger, write_headline
from unvanish.reports.diagnosis.ledger_text import draw_ledger
from unvanish.reports.parts import sheet
from unvanish.reports.parts.bars import draw_sparkline
from unvanish.reports.parts.screen import fit_screen
from unvanish.reports.parts.series import TimeSeries, read_times
from unvanish.reports.parts.sheet import (
    assemble,
    clip,
    fit_height,
    fit_width,
    hang,
    join_lines,
    print_lines,
    separate,
)
from unvanish.reports.parts.words import cap, clean, describe_measurement, list_names, plural

ALIKE = 3  # findings of one code, at most


def render(
    diagnosis: Diagnosis, width: int = 80, height: int = sheet.SCREEN, *, verbose: bool = False
) -> str:
    """The report as plain text without escape codes, in lines of at most `width` cells (60 to 100)."""
    return join_lines(write_lines(diagnosis, width, height, verbose=verbose))


def print_report(diagnosis: Diagnosis, console: Console | None = None, *, verbose: bool = False) -> None:
    """Print to a console (stdout by default): coloured on a terminal, plain when piped or under NO_COLOR."""
    console = console or Console(highlight=False)
    print_lines(write_lines(diagnosis, console.width, fit_height(console), verbose=verbose), console)


def write_lines(
    diagnosis: Diagnosis, width: int = 80, height: int = sheet.SCREEN, *, verbose: bool = False
) -> list[Text]:
    """The report as styled lines of at most `width` cells (60 to 100), at most `height` unless verbose."""
    width, book = fit_width(width), find_ledger(diagnosis)
    top = write_headline(diagnosis, book)
    times = [] if diagnosis.healthy else read_times(diagnosis.trace)

    @cache
    def draw(rows: int) -> list[Text]:
        return _ledger(book, width, rows)

    def compose(detail: Detail) -> list[Text]:
        flow = [] if diagnosis.healthy else [draw(detail.rows), _times(times, width, detail)]
        return list(separate(_compose(diagnosis, top, flow, width, detail)))

    return compose(WHOLE) if verbose else fit_screen(compose, Detail(), WISHES, height)


def _compose(
    diagnosis: Diagnosis, top: Headline, flow: Sequence[list[Text]], width: int, detail: Detail
) -> list[list[Text]]:
    """The report in blocks, as much as `detail` says; `flow`: the ledger, gradients through time."""
    header, findings = _header(diagnosis, top, width, detail), _findings(diagnosis, width, detail)
    closing = close_report(diagnosis, width, detail)
    if detail.airy:
        return [header, *findings, *flow, closing]
    return [header, _join(findings), [*_join(flow), *closing]]


def _join(blocks: Sequence[Sequence[Text]]) -> list[Text]:
    return [line for block in blocks for line in block]


def _header(diagnosis: Diagnosis, top: Headline, width: int, detail: Detail) -> list[Text]:
    style = STYLES[top.severity] if top.severity else "bold green"
    out = clip(hang([("unvanish: ", "bold")], clean(diagnosis.subject), width, 10, "bold"), detail.sentence)
    facts = describe_measurement(diagnosis)
    while not detail.whole and cell_len(", ".join(facts)) > width and len(facts) > 1:
        facts.pop()
    out += clip(hang([], ", ".join(facts), width, 2, "dim"), detail.sentence) if facts else []
    out += hang([], top.sentence, width, 2, style)
    crash = diagnosis.trace.facts.get("crash")
    if crash:
        out += clip(hang([("crash: ", "bold red")], clean(crash), width, 7), detail.sentence)
    return out


def _findings(diagnosis: Diagnosis, width: int, detail: Detail) -> list[list[Text]]:
    """A block for each finding in full, one for those in brief, and a line that counts the rest."""
    full, brief, rest = _choose(diagnosis.counted("note"), detail)
    kinds = {site.label: site.kind for site in reversed(diagnosis.trace.sites)}
    blocks = [describe_finding(f, kinds, width, detail) for f in full]
    also = [line for f in brief for line in describe_briefly(f, width, 2 if detail.sentence > 3 else 1)]
    if rest:
        tally = [f"{name} ({n})" for name, n in Counter(f"{f.code} {f.name}" for f in rest).items()]
        text = f"{plural(len(rest), 'more finding')}: {list_names(tally, 12 if detail.whole else 6)}"
        also += clip(hang([("and ", "bold")], text, width, 4), detail.sentence)
    return [*blocks, also]


def _choose(
    findings: Sequence[Finding], detail: Detail
) -> tuple[list[Finding], list[Finding], list[Finding]]:
    """The findings shown in full, those in brief, and the others; notes are never in full beside faults."""
    full: list[Finding] = []
    brief: list[Finding] = []
    rest: list[Finding] = []
    for finding in findings:
        alike = sum(f.code == finding.code for f in full)
        quiet = finding.severity == "note" and not detail.whole and bool(full)
        if alike < ALIKE and len(full) < detail.full and not quiet:
            full.append(finding)
        else:
            known = any(f.code == finding.code for f in brief)
            (brief if len(brief) < detail.brief and not known and alike < ALIKE else rest).append(finding)
    return full, brief, rest


def _ledger(book: Ledger | None, width: int, rows: int) -> list[Text]:
    if book is not None:
        return draw_ledger(book, width, rows)
    text = "there is no depth axis: no chain of places that every gradient path from the loss must cross"
    return hang([("gradient ledger: ", "bold")], text, width, 2)


def _times(recurrences: Sequence[TimeSeries], width: int, detail: Detail) -> list[Text]:
    if not recurrences or not detail.recurrences:
        return []
    shown, rest = recurrences[: detail.recurrences], len(recurrences) - detail.recurrences
    if detail.whole:
        shown, rest = cap(recurrences, detail.recurrences)
    text = "log10 of the gradient, first step to last"
    out = hang([("gradient through time: ", "bold")], text, width, 2, "dim")
    for time in shown:
        phrase = f"{clean(time.path) or '(model)'}: {time.phrase}"
        out += clip(hang(["  "], phrase, width, 4), detail.sentence)
        out.append(
            assemble("    ", (draw_sparkline(time.curve, min(len(time.steps), width - 6)), "bright_blue"))
        )
    return [*out, *([assemble((f"  and {rest} more recurrences", "dim"))] if rest > 0 else [])]
