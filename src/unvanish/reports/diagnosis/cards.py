"""A finding as a card: cause, sites, numbers, how sure it is, its consequences, and the remedies."""

from __future__ import annotations

from collections.abc import Sequence

from unvanish.core.diagnosis import Evidence, Finding, Remedy
from unvanish.reports.parts.markup import Content, Html, tag
from unvanish.reports.parts.words import cap, clean, describe_proof, describe_remedy, number

SAFETIES = {
    "exact": "the same function: checked by equal outputs",
    "retrain": "another function: training must prove it",
    "advice": "a person decides: never applied automatically",
}
SITES, MORE_SITES, NUMBERS = 4, 500, 40  # shown: at once, when opened, of evidence


def draw_card(finding: Finding, level: int) -> Html:
    """A finding, its heading at this level."""
    return tag(
        "section",
        tag(
            "header",
            tag("span", finding.severity, class_="uv-badge"),
            tag(f"h{level}", tag("code", finding.code), " ", finding.name),
        ),
        tag("p", finding.cause, class_="uv-cause"),
        _tell_line(finding),
        _sites(finding.sites),
        _evidence(finding.evidence),
        _proof(finding),
        _consequences(finding.consequences),
        _remedies(finding.remedies),
        tag("p", tag("code", f"unvanish explain {finding.code}"), " for the whole page", class_="uv-help"),
        class_=f"uv-card uv-{finding.severity}",
    )


def _tell_line(finding: Finding) -> Html | None:
    """The line of the code, and the reason if the finding does not count."""
    parts = [clean(finding.line)] if finding.line and finding.line not in finding.cause else []
    if finding.excuse is not None:
        parts.append(f"does not count, {finding.excuse.kind}: {clean(finding.excuse.reason)}")
    return tag("p", "; ".join(parts), class_="uv-help") if parts else None


def _proof(finding: Finding) -> Html | None:
    """How sure the cause is; nothing for a note without an experiment."""
    if finding.severity == "note" and not finding.experiment:
        return None
    word, experiment = describe_proof(finding)
    return tag("p", tag("span", word, class_=f"uv-proof uv-{word.split(',')[0]}"), f" {experiment}")


def _sites(sites: Sequence[str]) -> Html | None:
    if not sites:
        return None
    shown, rest = cap(sites, SITES)
    if not rest:
        return tag("div", _codes(shown), class_="uv-sites")
    others, hidden = cap(sites[SITES:], MORE_SITES)
    head = tag("summary", _codes(shown), tag("span", f"and {rest} more"))
    tail = f"and {hidden} more" if hidden else None
    return tag("details", head, _codes(others), tail, class_="uv-sites")


def _codes(names: Sequence[str]) -> list[Content]:
    return [[tag("code", clean(name) or "(model)"), " "] for name in names]


def _evidence(evidence: Sequence[Evidence]) -> Html | None:
    if not evidence:
        return None
    heads = [name for name, used in _columns(evidence) if used]
    rows = [tag("tr", [_cell(name, item) for name in heads]) for item in evidence[:NUMBERS]]
    titles = tag("tr", [tag("th", name, scope="col", class_=f"uv-c-{name}") for name in heads])
    return tag("div", tag("table", tag("thead", titles), tag("tbody", rows)), class_="uv-evidence")


def _columns(evidence: Sequence[Evidence]) -> list[tuple[str, bool]]:
    limits, sites = any(e.limit for e in evidence), any(e.site for e in evidence)
    return [("evidence", True), ("measured", True), ("limit", limits), ("where", sites)]


def _cell(column: str, item: Evidence) -> Html:
    if column == "evidence":
        return tag("th", item.name, scope="row")
    if column == "measured":
        return tag("td", tag("b", number(item.value)), f" {clean(item.unit)}", class_="uv-c-measured")
    if column == "limit":
        return tag("td", item.limit)
    return tag("td", tag("code", item.site) if item.site else None)


def _consequences(findings: Sequence[Finding]) -> Html | None:
    """Each consequence in one line, which opens to its numbers."""
    if not findings:
        return None
    items = [
        tag(
            "details",
            tag("summary", tag("code", f.code), f" {clean(f.name)}", tag("span", f" {clean(f.severity)}")),
            tag("p", f.cause),
            _sites(f.sites),
            _evidence(f.evidence),
            _consequences(f.consequences),
        )
        for f in findings
    ]
    return tag("div", tag("p", "follows from it", class_="uv-eyebrow"), items, class_="uv-follows")


def _remedies(remedies: Sequence[Remedy]) -> Html | None:
    if not remedies:
        return None
    items = [
        tag(
            "li",
            tag("span", r.safety, class_=f"uv-safety uv-s-{r.safety}", title=SAFETIES[r.safety]),
            tag("span", tag("code", describe_remedy(r)), f": {r.why}" if r.why else ""),
        )
        for r in remedies
    ]
    return tag("div", tag("p", "remedies", class_="uv-eyebrow"), tag("ul", items), class_="uv-remedies")
