"""A short table for a comment on a pull request, or for a workflow's summary.

Notable: names are written with character references for all that Markdown, a table or HTML could read.
"""

from __future__ import annotations

import re

from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.reports.diagnosis.headline import find_ledger, write_headline
from unvanish.reports.diagnosis.messages import list_failing
from unvanish.reports.parts.words import clean, describe_remedy, list_names, plural

MARKS = {"error": "❌ error", "warning": "⚠️ warning", "note": "note"}
SIGNS = re.compile(r"[^\w\s.,;:/()=+%'-]|(?<![^\W_])_|_(?![^\W_])")  # between letters, _ is one itself
SITES = 2


def render(diagnosis: Diagnosis, fail_on: str = "warning") -> str:
    """The headline, a row for each finding that counts, the others folded; `fail_on` decides the verdict."""
    failing = list_failing(diagnosis, fail_on)
    verdict = f"fails: {plural(len(failing), 'finding')}" if failing else "passes"
    top = write_headline(diagnosis, find_ledger(diagnosis))
    blocks = [f"### unvanish: {_code(diagnosis.subject)}", f"**{verdict}**; {_text(top.sentence)}"]
    if counted := diagnosis.counted("note"):
        rows = [
            "| | fault | where | cause | remedy |",
            "|---|---|---|---|---|",
            *map(_row, counted),
        ]
        blocks.append("\n".join(rows))
    if excused := diagnosis.excused:
        head = f"<details><summary>{plural(len(excused), 'finding')} suppressed</summary>"
        blocks.append("\n\n".join([head, "\n".join(map(_excuse, excused)), "</details>"]))
    return "\n\n".join(blocks) + "\n"


def _row(finding: Finding) -> str:
    where = _places(finding)
    if finding.line:
        where = f"{_code(finding.line)} {where}"
    remedy = _text(describe_remedy(finding.remedies[0])) if finding.remedies else ""
    cells = (MARKS[finding.severity], _title(finding), where, _text(finding.cause), remedy)
    return f"| {' | '.join(cells)} |"


def _excuse(finding: Finding) -> str:
    reason = f"{finding.excuse.kind}: {finding.excuse.reason}" if finding.excuse else ""
    return f"- {_title(finding)} {_places(finding)}, {_text(reason)}"


def _title(finding: Finding) -> str:
    return f"**{_text(finding.code)}** {_text(finding.name)}"


def _places(finding: Finding) -> str:
    return _code(list_names([site or "(model)" for site in finding.sites], SITES)) if finding.sites else ""


def _text(text: str) -> str:
    """Printable text in which nothing is Markdown, HTML, or the end of a cell."""
    return SIGNS.sub(lambda sign: f"&#{ord(sign[0])};", clean(text))


def _code(text: str) -> str:
    return f"<code>{_text(text)}</code>" if clean(text) else ""
