"""The report for people: one page that needs no network and no script, and a fragment for notebooks.

Notable:
- `_markup.tag` escapes by construction; a module named `<script>` is text like any other.
- All style lives under the class `uv`, so a fragment changes nothing around it; light and dark follow the
  reader's system (or the notebook's theme).
- Losses are blue, gains orange: told apart by colour-blind eyes, and always named in words as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from unvanish.core.diagnosis import Diagnosis, Finding, Verdict
from unvanish.core.ledger import Ledger
from unvanish.core.version import __version__
from unvanish.reports.diagnosis import cards, ledger_html
from unvanish.reports.diagnosis.headline import Headline, account, counts, headline, remaining
from unvanish.reports.parts import figures as _figures
from unvanish.reports.parts.markup import Content, Html, tag
from unvanish.reports.parts.series import depth, times
from unvanish.reports.parts.words import by_reason, capped, clean, measured, plural, rounded, told_by_theory

STYLE = Path(__file__).with_name("report.css")
PAGE = "html{background:light-dark(#f3f4f6,#0c1015);color-scheme:light dark}body{margin:0}"
FINDINGS, ALIKE = 60, 6


def render(diagnosis: Diagnosis) -> str:
    """One self-contained HTML page."""
    title = f"{clean(diagnosis.subject)} - unvanish"
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"unvanish {__version__}"),
        tag("title", title),
        tag("style", Html(PAGE)),
    ]
    body = tag("body", _article(diagnosis, level=1))
    return f"<!doctype html>\n{tag('html', tag('head', head), body, lang='en')}\n"


def fragment(diagnosis: Diagnosis) -> str:
    """The report as one element with its own style, for a notebook's cell."""
    return str(_article(diagnosis, level=2))


def _article(diagnosis: Diagnosis, level: int) -> Html:
    book = account(diagnosis)
    top = headline(diagnosis, book)
    sections = [
        _findings(diagnosis, level + 1),
        _ledger(book, level + 1),
        _depth(diagnosis, level + 1),
        _time(diagnosis, level + 1),
        _verdicts(diagnosis, level + 1),
    ]
    style = tag("style", Html(STYLE.read_text(encoding="utf-8")))
    article = tag("article", _header(diagnosis, top, level), sections, _footer(diagnosis))
    return tag("div", style, article, class_=f"uv uv-is-{top.word}")


def _header(diagnosis: Diagnosis, top: Headline, level: int) -> Html:
    crash = diagnosis.trace.facts.get("crash")
    return tag(
        "header",
        tag("p", tag("b", "unvanish"), " check", class_="uv-brand"),
        tag(f"h{level}", diagnosis.subject),
        tag("div", _verdict(diagnosis, top), _total(top), class_="uv-hero"),
        tag("p", tag("b", "crash: "), str(crash), class_="uv-crash") if crash else None,
        _strip(diagnosis, top),
        tag("ul", [tag("li", fact) for fact in measured(diagnosis)], class_="uv-facts"),
    )


def _verdict(diagnosis: Diagnosis, top: Headline) -> Html:
    tally = ", ".join(counts(diagnosis))
    rules = f"{plural(len(diagnosis.passed), 'rule')} passed" if diagnosis.passed else ""
    sentence = top.sentence[:1].upper() + top.sentence[1:] + "."
    return tag(
        "div",
        tag("p", top.word, class_="uv-pill"),
        tag("p", sentence, class_="uv-sentence"),
        tag("p", ", ".join(part for part in (tally, rules) if part), class_="uv-quiet"),
    )


def _total(top: Headline) -> Html | None:
    """The number that the verdict is about, large."""
    total = top.total if top.time is None else top.time.total
    if total is None:
        return None
    large = {"-inf": "no gradient", "nan": "NaN"}.get(rounded(total), rounded(total))
    return tag(
        "p",
        tag("b", large),
        tag("span", {-math.inf: "reaches the input"}.get(total, "decades")),
        tag("small", remaining(total, ("input", "loss") if top.time is None else ("first step", "last"))),
        class_="uv-big",
    )


def _strip(diagnosis: Diagnosis, top: Headline) -> Html | None:
    if top.time is not None:
        return _figures.strip(top.time.curve[::-1], ("last step", "first step"))
    curves = depth(diagnosis.trace)
    return None if curves is None else _figures.strip(curves.gradient, ("loss", "input"))


def _section(title: str, level: int, *content: Content, lead: str = "") -> Html:
    intro = tag("p", lead, class_="uv-quiet") if lead else None
    return tag("section", tag(f"h{level}", title), intro, content)


def _findings(diagnosis: Diagnosis, level: int) -> Html | None:
    if not diagnosis.findings:
        return None
    shown: list[Finding] = []
    for finding in diagnosis.findings:
        if sum(f.code == finding.code for f in shown) < ALIKE and len(shown) < FINDINGS:
            shown.append(finding)
    rest = len(diagnosis.findings) - len(shown)
    told = f"and {plural(rest, 'more finding')} of the same kinds, in the JSON report"
    more = tag("p", told, class_="uv-more")
    return _section("Findings", level, [cards.card(f, level + 1) for f in shown], more if rest else None)


def _ledger(book: Ledger | None, level: int) -> Html | None:
    if book is None or not book.rows:
        return None
    lead = "Each bar starts where the one above ended. A decade is a factor of ten; blue loses, orange gains."
    return _section("Where the gradient goes", level, ledger_html.waterfall(book), lead=lead)


def _depth(diagnosis: Diagnosis, level: int) -> Html | None:
    curves = depth(diagnosis.trace)
    if curves is None:
        return None
    lead = "The gradient is relative to the loss; activations are as they are. Both in decades."
    said = told_by_theory(diagnosis)
    beside = tag("p", f"Theory {said}.", class_="uv-more") if said else None
    return _section("Along the depth", level, tag("figure", _figures.depth_chart(curves)), beside, lead=lead)


def _time(diagnosis: Diagnosis, level: int) -> Html | None:
    found, rest = capped(times(diagnosis.trace), 6)
    figures = [
        tag(
            "figure",
            tag(
                "figcaption",
                tag("code", clean(time.path) or "(model)"),
                f": {time.told}",
            ),
            _figures.time_chart(time),
        )
        for time in found
    ]
    more = tag("p", f"and {rest} more recurrences, in the JSON report", class_="uv-more") if rest else None
    return _section("Through time", level, figures, more) if figures else None


def _verdicts(diagnosis: Diagnosis, level: int) -> Html | None:
    assumed = diagnosis.trace.facts.get("assumptions") or ()
    parts = [
        _passed(diagnosis.passed, level + 1),
        _reasons("Not applicable", diagnosis.not_applicable, level + 1),
        _reasons("Skipped", diagnosis.skipped, level + 1),
        _assumed([str(sentence) for sentence in assumed], level + 1),
    ]
    if not any(parts):
        return None
    return _section("What else was judged", level, tag("div", parts, class_="uv-verdicts"))


def _assumed(sentences: Sequence[str], level: int) -> Html | None:
    items = [tag("li", sentence) for sentence in sentences]
    return tag("div", tag(f"h{level}", "Assumed"), tag("ul", items)) if items else None


def _passed(passed: Sequence[Verdict], level: int) -> Html | None:
    codes = [[tag("code", v.code, title=v.name), " "] for v in passed]
    return tag("div", tag(f"h{level}", f"Passed ({len(passed)})"), tag("p", codes)) if codes else None


def _reasons(title: str, verdicts: Sequence[Verdict], level: int) -> Html | None:
    if not verdicts:
        return None
    items = [
        tag("li", [[tag("code", v.code, title=v.name), " "] for v in group], tag("span", reason))
        for reason, group in by_reason(verdicts)
    ]
    return tag("div", tag(f"h{level}", f"{title} ({len(verdicts)})"), tag("ul", items))


def _footer(diagnosis: Diagnosis) -> Html:
    trace = diagnosis.trace
    torch = f" with torch {clean(trace.facts['torch'])}" if trace.facts.get("torch") else ""
    places = sum(site.role == "node" for site in trace.sites)
    told = (
        f"unvanish {__version__}{torch}. Measured in one batch, forward and backward, at {places:,} places:"
        " norms of gradients and activations, judged as ratios, so the scale of the loss changes nothing."
    )
    return tag("footer", tag("p", told))
