"""A finding in lines, as a compiler shows one: title, place, numbers behind a gutter, and what to do.

Notable:
- Numbers are aligned in columns; one with a longer name or value gets lines of its own.
- Lines with `=` say how sure a finding is, what follows from it, its remedies, and where to read more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from unvanish.core.diagnosis import Evidence, Finding, Remedy
from unvanish.reports.diagnosis.detail import Detail
from unvanish.reports.parts.sheet import Piece, assemble, clip, hang
from unvanish.reports.parts.words import (
    cap,
    clean,
    describe_proof,
    describe_remedy,
    list_consequences,
    list_names,
    number,
)

STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
PROOFS = {"confirmed": "bold green", "tried, not confirmed": "yellow", "indicated": "dim"}
SAFETIES = {"exact": "green", "retrain": "yellow", "advice": "cyan"}
GUTTER = "   | "
CAUSE = 4  # lines that a cause has in any case


def describe_finding(finding: Finding, kinds: Mapping[str, str], width: int, detail: Detail) -> list[Text]:
    """A finding in lines of at most `width` cells; `kinds` are the sites' kinds by label; a note is brief."""
    if finding.severity == "note":
        return [*_title(finding, width, detail), *_where(finding, {}, width)]
    word, experiment = describe_proof(finding)
    out = [*_title(finding, width, detail), *clip(_where(finding, kinds, width), detail.sentence)]
    out += _evidence(finding.evidence, width, detail)
    out += clip(_child((word, PROOFS[word]), experiment, width), detail.sentence)
    out += clip(list_followers(finding, width), detail.sentence)
    shown, rest = cap(finding.remedies, detail.remedies) if detail.remedies > 1 else (finding.remedies[:1], 0)
    for remedy in shown:
        out += clip(write_remedy(remedy, width), detail.sentence)
    rest = rest or len(finding.remedies) - len(shown)
    out += _child(("remedies", "dim"), f"and {rest} more", width) if rest else []
    if not detail.whole:
        return out
    return [*out, *_child(("help", "bold"), f"`unvanish explain {clean(finding.code)}`", width)]


def describe_briefly(finding: Finding, width: int, lines: int, when: str = "") -> list[Text]:
    """Its title and cause, in at most so many lines; `when`: the steps at which it was seen."""
    style, at = STYLES[finding.severity], f" ({when})" if when else ""
    head = [(f"{finding.severity}[{clean(finding.code)}]", style), (f" {clean(finding.name)}{at}: ", "bold")]
    return clip(hang(head, clean(finding.cause), width, 2), lines)


def list_followers(finding: Finding, width: int) -> list[Text]:
    """What follows from it, by name; nothing if nothing does."""
    names = [f"{clean(c.code)} {clean(c.name)}" for c in list_consequences(finding)]
    return _child(("follows", "bold"), list_names(names, 6), width) if names else []


def write_remedy(remedy: Remedy, width: int) -> list[Text]:
    """A remedy: how safe it is, the call, and why."""
    safety = (f"[{remedy.safety}] ", SAFETIES[remedy.safety])
    head = [("   = ", "dim"), ("remedy ", "bold"), safety]
    why = clean(remedy.why)
    return hang(head, describe_remedy(remedy) + (f": {why}" if why else ""), width, 7)


def _title(finding: Finding, width: int, detail: Detail) -> list[Text]:
    return describe_briefly(finding, width, max(detail.sentence, CAUSE))


def _where(finding: Finding, kinds: Mapping[str, str], width: int) -> list[Text]:
    if not finding.sites:
        return []
    first, *others = finding.sites
    kind = clean(kinds.get(first, ""))
    named = f"{clean(first) or '(model)'}{f' ({kind})' if kind else ''}"
    tail = [clean(site) for site in others] if len(others) < 3 else [f"and {len(others)} more"]
    line = f" ({clean(finding.line)})" if finding.line and finding.line not in finding.cause else ""
    return hang([("  --> ", "bright_blue")], ", ".join([named, *tail]) + line, width, 6)


def _evidence(evidence: Sequence[Evidence], width: int, detail: Detail) -> list[Text]:
    """Aligned lines `name  value unit  (limit ...)  at site` behind a gutter."""
    shown, rest = evidence[: detail.numbers], 0
    if detail.whole:
        shown, rest = cap(evidence, detail.numbers)
    if not shown:
        return []
    names = min(max(cell_len(clean(e.name)) for e in shown), width // 2 - 8)
    values = min(max(cell_len(number(e.value)) for e in shown), 12)
    units = min(max(cell_len(clean(e.unit)) for e in shown), 14)
    out: list[Text] = []
    for item in shown:
        out += clip(_number(item, (names, values, units), width), 3)
    return [*out, *([assemble((f"{GUTTER}and {rest} more", "dim"))] if rest else [])]


def _number(item: Evidence, columns: tuple[int, int, int], width: int) -> list[Text]:
    name, value, unit = clean(item.name), number(item.value), clean(item.unit)
    limit = f"(limit {clean(item.limit)})" if item.limit else ""
    site = f"at {clean(item.site)}" if item.site else ""
    head: list[Piece] = [(GUTTER, "dim"), _fill(name, columns[0]), "  "]
    body = " ".join(part for part in (limit, site) if part)
    if cell_len(name) <= columns[0] and cell_len(value) <= columns[1] and cell_len(unit) <= columns[2]:
        head += [(value.rjust(columns[1]), "bold"), f" {_fill(unit, columns[2])}  "]
    else:
        head, body = [(GUTTER, "dim")], " ".join(part for part in (name, value, unit, body) if part)
    return hang(head, body, width, GUTTER + "    ")


def _fill(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _child(word: tuple[str, str], text: str, width: int) -> list[Text]:
    return hang([("   = ", "dim"), word, ": " if text else ""], text, width, 7)
