"""The report for terminals, in the form of a compiler's messages: what, where, the numbers, why, what to do.

Notable:
- `render` gives plain text for files and `print()`; `print_report` adds colours on a terminal.
- Every line fits the width (60 to 100 cells), so the terminal wraps nothing.
- A healthy model gets a few lines: its verdict, the total in decades, and how many rules passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from unvanish.core.diagnosis import Diagnosis, Finding, Verdict
from unvanish.core.ledger import Ledger
from unvanish.reports.diagnosis.findings_text import STYLES, describe_finding
from unvanish.reports.diagnosis.headline import Headline, count_findings, find_ledger, write_headline
from unvanish.reports.diagnosis.ledger_text import draw_ledger
from unvanish.reports.parts.bars import draw_sparkline
from unvanish.reports.parts.series import TimeSeries, read_times
from unvanish.reports.parts.sheet import assemble, fit_width, hang, print_lines, separate
from unvanish.reports.parts.words import (
    cap,
    clean,
    describe_measurement,
    describe_theory,
    group_by_reason,
    list_names,
    plural,
)

FULL_FINDINGS, ALIKE, RECURRENCES = 10, 3, 6  # shown: in full, of one code, through time


def render(diagnosis: Diagnosis, width: int = 80) -> str:
    """The report as plain text without escape codes, in lines of at most `width` cells (60 to 100)."""
    return "\n".join(line.plain.rstrip() for line in write_lines(diagnosis, width)) + "\n"


def print_report(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print to a console (stdout by default): coloured on a terminal, plain when piped or under NO_COLOR."""
    console = console or Console(highlight=False)
    print_lines(write_lines(diagnosis, console.width), console)


def write_lines(diagnosis: Diagnosis, width: int = 80) -> list[Text]:
    """The report as styled lines of at most `width` cells (60 to 100)."""
    width = fit_width(width)
    book = find_ledger(diagnosis)
    blocks = [_header(diagnosis, write_headline(diagnosis, book), width), *_findings(diagnosis, width)]
    if not diagnosis.healthy:
        blocks += [_ledger(book, width), _times(read_times(diagnosis.trace), width)]
    blocks += [_verdicts(diagnosis, width), _closing(diagnosis, width)]
    return list(separate(blocks))


def _header(diagnosis: Diagnosis, top: Headline, width: int) -> list[Text]:
    style = STYLES[top.severity] if top.severity else "bold green"
    out = hang([("unvanish: ", "bold")], clean(diagnosis.subject), width, 10, "bold")
    facts = ", ".join(describe_measurement(diagnosis))
    out += hang([], facts, width, 2, "dim") if facts else []
    out += hang([], top.sentence, width, 2, style)
    crash = diagnosis.trace.facts.get("crash")
    return [*out, *(hang([("crash: ", "bold red")], clean(crash), width, 7) if crash else [])]


def _findings(diagnosis: Diagnosis, width: int) -> list[list[Text]]:
    """A block for each finding, at most three of a code, and a line that counts the rest."""
    shown, rest = _choose(diagnosis.counted("note"))
    kinds = {site.label: site.kind for site in reversed(diagnosis.trace.sites)}
    blocks = [describe_finding(f, kinds, width) for f in shown]
    if rest:
        tally = [f"{name} ({n})" for name, n in Counter(f"{f.code} {f.name}" for f in rest).items()]
        text = f"{plural(len(rest), 'more finding')}: {list_names(tally, 12)}"
        blocks.append(hang([("and ", "bold")], text, width, 4))
    return [*blocks, _excused(diagnosis, width)]


def _excused(diagnosis: Diagnosis, width: int) -> list[Text]:
    """What does not count: each finding that is ignored with its reason, old ones by their codes."""
    out: list[Text] = []
    if diagnosis.excused:
        out = [assemble((f"suppressed ({len(diagnosis.excused)}):", "dim"))]
    old: Counter[str] = Counter()
    for finding in diagnosis.excused:
        name = f"{clean(finding.code)} {clean(finding.name)}"
        if finding.excuse is not None and finding.excuse.kind == "ignored":
            where = f" at {list_names(finding.sites, 1)}" if finding.sites else ""
            out += hang(["  "], f"{name}{where}, ignored: {clean(finding.excuse.reason)}", width, 6, "dim")
        else:
            old[name] += 1
    if old:
        tally = ", ".join(f"{name}{f' ({n})' if n > 1 else ''}" for name, n in old.items())
        out += hang(["  "], f"in the baseline: {tally}", width, 6, "dim")
    return out


def _choose(findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """The findings shown in full, and the others."""
    shown: list[Finding] = []
    rest: list[Finding] = []
    for finding in findings:
        alike = sum(f.code == finding.code for f in shown)
        (shown if alike < ALIKE and len(shown) < FULL_FINDINGS else rest).append(finding)
    return shown, rest


def _ledger(book: Ledger | None, width: int) -> list[Text]:
    if book is not None:
        return draw_ledger(book, width)
    text = "there is no depth axis: no chain of places that every gradient path from the loss must cross"
    return hang([("gradient ledger: ", "bold")], text, width, 2)


def _times(recurrences: Sequence[TimeSeries], width: int) -> list[Text]:
    if not recurrences:
        return []
    shown, rest = cap(recurrences, RECURRENCES)
    text = "log10 of the gradient, first step to last"
    out = hang([("gradient through time: ", "bold")], text, width, 2, "dim")
    for time in shown:
        out += hang(["  "], f"{clean(time.path) or '(model)'}: {time.phrase}", width, 4)
        out.append(
            assemble("    ", (draw_sparkline(time.curve, min(len(time.steps), width - 6)), "bright_blue"))
        )
    return [*out, *([assemble((f"  and {rest} more recurrences", "dim"))] if rest else [])]


def _verdicts(diagnosis: Diagnosis, width: int) -> list[Text]:
    out: list[Text] = []
    passed, missing = diagnosis.passed, diagnosis.not_applicable
    if diagnosis.healthy:
        tally = [f"{plural(len(passed), 'rule')} passed"] if passed else []
        tally += [f"{len(missing)} not applicable"] if missing else []
        out += hang([], ", ".join(tally), width, 2, "dim") if tally else []
    else:
        codes = " ".join(clean(v.code) for v in passed)
        out += hang([(f"passed ({len(passed)}): ", "green")], codes, width, 2) if passed else []
        out += _group("not applicable", missing, width)
    out += _group("skipped", diagnosis.skipped, width)
    out += _theory(diagnosis, width)
    for sentence in diagnosis.trace.facts.get("assumptions") or ():
        out += hang([("assumed: ", "bold")], clean(sentence), width, 2)
    for sentence in diagnosis.unmeasured:
        out += hang([("not measured: ", "bold")], clean(sentence), width, 2)
    for place in diagnosis.not_put_back:
        out += hang([("may have changed, and cannot be put back: ", "bold")], clean(place), width, 2)
    return out


def _theory(diagnosis: Diagnosis, width: int) -> list[Text]:
    """What theory predicts for the same net, and where the measurement differs."""
    text = describe_theory(diagnosis)
    return hang([("theory: ", "bold")], text, width, 2, "dim") if text else []


def _closing(diagnosis: Diagnosis, width: int) -> list[Text]:
    """The last line: how many findings, and their codes."""
    counted = diagnosis.counted("warning")
    if diagnosis.healthy or (diagnosis.excused and not counted):
        return []
    codes = [clean(code) for code in dict.fromkeys(f.code for f in counted)]
    head = ("found ", "bold"), (" and ".join(count_findings(diagnosis)[:2]), "bold"), ": "
    return hang(head, list_names(codes, 12), width, 2)


def _group(title: str, verdicts: Sequence[Verdict], width: int) -> list[Text]:
    if not verdicts:
        return []
    out = [assemble((f"{title} ({len(verdicts)}):", "dim"))]
    for reason, group in group_by_reason(verdicts):
        out += hang(["  "], f"{' '.join(clean(v.code) for v in group)}: {reason}", width, 6, "dim")
    return out
