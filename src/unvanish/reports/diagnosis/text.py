"""The report for terminals, written to be read like a compiler's: what, where, the numbers, why, what to do.

Notable:
- `render` gives plain text for files and `print()`; `print_report` colours it where a terminal shows colours.
- Every line is built to fit the width (60 to 100 cells), so nothing wraps by accident.
- A healthy model gets a few lines: its verdict, the total in decades, and how many rules passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from unvanish.core.diagnosis import Diagnosis, Finding, Verdict
from unvanish.core.ledger import Ledger
from unvanish.reports.diagnosis.findings_text import STYLES, finding_lines
from unvanish.reports.diagnosis.headline import account, counts, headline
from unvanish.reports.diagnosis.ledger_text import chart
from unvanish.reports.parts.bars import ASCII, sparkline
from unvanish.reports.parts.series import Time, times
from unvanish.reports.parts.sheet import hang, joined
from unvanish.reports.parts.words import by_reason, capped, clean, listed, measured, plural, told_by_theory

FULL_FINDINGS, ALIKE = 10, 3


def render(diagnosis: Diagnosis, width: int = 80) -> str:
    """The report as plain text without escape codes, in lines of at most `width` cells (60 to 100)."""
    return "\n".join(line.plain.rstrip() for line in lines(diagnosis, width)) + "\n"


def print_report(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print to a console (stdout by default): coloured on a terminal, plain when piped or under NO_COLOR."""
    console = console or Console(highlight=False)
    spelled = console.encoding.lower().replace("-", "").startswith("utf")
    for line in lines(diagnosis, console.width):
        if not spelled:
            line.plain = line.plain.translate(ASCII).encode("ascii", "replace").decode("ascii")
        console.print(line, soft_wrap=True, highlight=False)


def lines(diagnosis: Diagnosis, width: int = 80) -> list[Text]:
    """The report as styled lines of at most `width` cells (60 to 100)."""
    width = min(max(width, 60), 100)
    book = account(diagnosis)
    blocks = [_header(diagnosis, book, width), *_findings(diagnosis, width)]
    if not diagnosis.healthy:
        blocks += [chart(book, width) if book is not None else _no_axis(width)]
        blocks += [_times(times(diagnosis.trace), width)]
    blocks += [_verdicts(diagnosis, width), _closing(diagnosis, width)]
    return list(_spaced(blocks))


def _spaced(blocks: Iterable[Sequence[Text]]) -> Iterable[Text]:
    """The blocks that are not empty, with one blank line between them."""
    for index, block in enumerate([b for b in blocks if b]):
        if index:
            yield Text()
        yield from block


def _header(diagnosis: Diagnosis, book: Ledger | None, width: int) -> list[Text]:
    top = headline(diagnosis, book)
    style = "bold green" if diagnosis.healthy else STYLES[diagnosis.at_least("warning")[0].severity]
    out = hang([("unvanish: ", "bold")], clean(diagnosis.subject), width, 10, "bold")
    facts = ", ".join(measured(diagnosis))
    out += hang([], facts, width, 2, "dim") if facts else []
    out += hang([], top.sentence, width, 2, style)
    crash = diagnosis.trace.facts.get("crash")
    return [*out, *(hang([("crash: ", "bold red")], clean(crash), width, 7) if crash else [])]


def _findings(diagnosis: Diagnosis, width: int) -> list[list[Text]]:
    """A block for each finding, three of a code at most, and a line that counts the rest."""
    shown, rest = _chosen(diagnosis.findings)
    kinds = {site.label: site.kind for site in reversed(diagnosis.trace.sites)}
    blocks = [finding_lines(f, kinds, width) for f in shown]
    if rest:
        tally = [f"{name} ({n})" for name, n in Counter(f"{f.code} {f.name}" for f in rest).items()]
        told = f"{plural(len(rest), 'more finding')}: {listed(tally, 12)}"
        blocks.append(hang([("and ", "bold")], told, width, 4))
    return blocks


def _chosen(findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """The findings shown in full, and the others."""
    shown: list[Finding] = []
    rest: list[Finding] = []
    for finding in findings:
        alike = sum(f.code == finding.code for f in shown)
        (shown if alike < ALIKE and len(shown) < FULL_FINDINGS else rest).append(finding)
    return shown, rest


def _no_axis(width: int) -> list[Text]:
    text = "there is no depth axis: no chain of places that every gradient path from the loss must cross"
    return hang([("gradient ledger: ", "bold")], text, width, 2)


def _times(recurrences: Sequence[Time], width: int) -> list[Text]:
    if not recurrences:
        return []
    shown, rest = capped(recurrences, 6)
    told = "log10 of the gradient, first step to last"
    out = hang([("gradient through time: ", "bold")], told, width, 2, "dim")
    for time in shown:
        out += hang(["  "], f"{clean(time.path) or '(model)'}: {time.told}", width, 4)
        out.append(joined("    ", (sparkline(time.curve, min(len(time.steps), width - 6)), "bright_blue")))
    return [*out, *([joined((f"  and {rest} more recurrences", "dim"))] if rest else [])]


def _verdicts(diagnosis: Diagnosis, width: int) -> list[Text]:
    out: list[Text] = []
    passed, missing = diagnosis.passed, diagnosis.not_applicable
    if diagnosis.healthy:
        told = [f"{plural(len(passed), 'rule')} passed"] if passed else []
        told += [f"{len(missing)} not applicable"] if missing else []
        out += hang([], ", ".join(told), width, 2, "dim") if told else []
    else:
        codes = " ".join(clean(v.code) for v in passed)
        out += hang([(f"passed ({len(passed)}): ", "green")], codes, width, 2) if passed else []
        out += _grouped("not applicable", missing, width)
    out += _grouped("skipped", diagnosis.skipped, width)
    out += _theory(diagnosis, width)
    for sentence in diagnosis.trace.facts.get("assumptions") or ():
        out += hang([("assumed: ", "bold")], clean(sentence), width, 2)
    return out


def _theory(diagnosis: Diagnosis, width: int) -> list[Text]:
    """What theory said of the same net, and where the measurement parts from it."""
    said = told_by_theory(diagnosis)
    return hang([("theory: ", "bold")], said, width, 2, "dim") if said else []


def _closing(diagnosis: Diagnosis, width: int) -> list[Text]:
    """The last line: how many findings, and their codes."""
    if diagnosis.healthy:
        return []
    found = [clean(code) for code in dict.fromkeys(f.code for f in diagnosis.at_least("warning"))]
    head = ("found ", "bold"), (" and ".join(counts(diagnosis)[:2]), "bold"), ": "
    return hang(head, listed(found, 12), width, 2)


def _grouped(title: str, verdicts: Sequence[Verdict], width: int) -> list[Text]:
    if not verdicts:
        return []
    out = [joined((f"{title} ({len(verdicts)}):", "dim"))]
    for reason, group in by_reason(verdicts):
        out += hang(["  "], f"{' '.join(clean(v.code) for v in group)}: {reason}", width, 6, "dim")
    return out
