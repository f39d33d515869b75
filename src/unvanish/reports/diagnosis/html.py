"""The report for people: one page that needs no network and no script, and a fragment for notebooks.

Notable:
- `markup.tag` escapes by construction; a module named `<script>` is text like any other.
- All style is under the class `uv`, so a fragment changes nothing around it; light and dark follow the
  reader's system (or the notebook's theme).
- Colours come with a legend, and colour-blind readers can distinguish them; signed numbers say the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from unvanish.core.diagnosis import Diagnosis, Finding, Verdict
from unvanish.core.ledger import Ledger
from unvanish.core.version import __version__
from unvanish.reports.diagnosis import cards, ledger_html
from unvanish.reports.diagnosis.headline import (
    Headline,
    count_findings,
    describe_ratio,
    find_ledger,
    name_verb,
    write_headline,
)
from unvanish.reports.parts.figures import draw_depth, draw_strip, draw_time
from unvanish.reports.parts.legend import LEDGER, VOID, draw_legend
from unvanish.reports.parts.markup import Content, Html, tag
from unvanish.reports.parts.page import read_style, render_report
from unvanish.reports.parts.series import TimeSeries, read_depth, read_times
from unvanish.reports.parts.words import (
    cap,
    capitalise,
    clean,
    describe_measurement,
    describe_theory,
    group_by_reason,
    plural,
    round_decades,
)

FINDINGS, ALIKE, RECURRENCES = 60, 6, 6  # shown: in all, of one code, through time


def render(diagnosis: Diagnosis) -> str:
    """One self-contained HTML page."""
    return render_report(f"{diagnosis.subject} - unvanish", _article(diagnosis, level=1))


def fragment(diagnosis: Diagnosis) -> str:
    """The report as one element with its own style, for a notebook's cell."""
    return str(_article(diagnosis, level=2, style="uv uv-cell"))


def _article(diagnosis: Diagnosis, level: int, style: str = "uv") -> Html:
    book = find_ledger(diagnosis)
    top = write_headline(diagnosis, book)
    sections = [
        _findings(diagnosis, level + 1),
        _ledger(book, level + 1),
        _depth(diagnosis, level + 1),
        _time(diagnosis, level + 1),
        _verdicts(diagnosis, level + 1),
    ]
    article = tag("article", _header(diagnosis, top, level), sections, _footer(diagnosis))
    return tag("div", tag("style", Html(read_style())), article, class_=f"{style} uv-is-{top.word}")


def _header(diagnosis: Diagnosis, top: Headline, level: int) -> Html:
    crash = diagnosis.trace.facts.get("crash")
    return tag(
        "header",
        tag("p", tag("b", "unvanish"), f" {name_verb(diagnosis)}", class_="uv-brand"),
        tag(f"h{level}", diagnosis.subject),
        tag("div", _verdict(diagnosis, top), _total(top), class_="uv-hero"),
        tag("p", tag("b", "crash: "), str(crash), class_="uv-crash") if crash else None,
        _strip(diagnosis, top),
        tag("ul", [tag("li", fact) for fact in describe_measurement(diagnosis)], class_="uv-facts"),
    )


def _verdict(diagnosis: Diagnosis, top: Headline) -> Html:
    tally = ", ".join(count_findings(diagnosis))
    rules = f"{plural(len(diagnosis.passed), 'rule')} passed" if diagnosis.passed else ""
    return tag(
        "div",
        tag("p", top.word, class_="uv-pill"),
        tag("p", capitalise(top.sentence), class_="uv-sentence"),
        tag("p", ", ".join(part for part in (tally, rules) if part), class_="uv-quiet"),
    )


def _total(top: Headline) -> Html | None:
    """The number that the verdict is about, large."""
    total = top.total if top.time is None else top.time.total
    if total is None:
        return None
    large = {"-inf": "no gradient", "nan": "NaN"}.get(round_decades(total), round_decades(total))
    ends = ("input", "loss") if top.time is None else ("first step", "last")
    return tag(
        "p",
        tag("b", large),
        tag("span", {-math.inf: "reaches the input"}.get(total, "decades")),
        tag("small", describe_ratio(total, ends)),
        class_="uv-big",
    )


def _strip(diagnosis: Diagnosis, top: Headline) -> Html | None:
    if top.time is not None:
        return draw_strip(top.time.curve[::-1], ("last step", "first step"))
    curves = read_depth(diagnosis.trace)
    return None if curves is None else draw_strip(curves.gradient, ("loss", "input"))


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
    text = f"and {plural(rest, 'more finding')} of the same kinds, in the JSON report"
    more = tag("p", text, class_="uv-more")
    return _section("Findings", level, [cards.draw_card(f, level + 1) for f in shown], more if rest else None)


def _ledger(book: Ledger | None, level: int) -> Html | None:
    if book is None or not book.rows:
        return None
    lead = "Each bar starts where the one above ended. A decade is a factor of ten."
    content = [draw_legend(*_list_keys(book)), ledger_html.draw_waterfall(book)]
    return _section("Where the gradient goes", level, content, lead=lead)


def _list_keys(book: Ledger) -> list[tuple[str, str]]:
    """What the ledger's bars can mean."""
    stops = any(math.isinf(row.decades) for row in book.leaves())
    return [*LEDGER, *([VOID] if stops else [])]


def _depth(diagnosis: Diagnosis, level: int) -> Html | None:
    curves = read_depth(diagnosis.trace)
    if curves is None:
        return None
    lead = "In decades: the gradient relative to the loss, and the RMS of the activations."
    theory = describe_theory(diagnosis)
    more = tag("p", f"Theory {theory}.", class_="uv-more") if theory else None
    return _section("Along the depth", level, tag("figure", draw_depth(curves)), more, lead=lead)


def _time(diagnosis: Diagnosis, level: int) -> Html | None:
    shown, rest = cap(read_times(diagnosis.trace), RECURRENCES)
    figures = [_recurrence(time) for time in shown]
    more = tag("p", f"and {rest} more recurrences, in the JSON report", class_="uv-more") if rest else None
    return _section("Through time", level, figures, more) if figures else None


def _recurrence(time: TimeSeries) -> Html:
    caption = tag("figcaption", tag("code", clean(time.path) or "(model)"), f": {time.phrase}")
    return tag("figure", caption, draw_time(time))


def _verdicts(diagnosis: Diagnosis, level: int) -> Html | None:
    assumed = diagnosis.trace.facts.get("assumptions") or ()
    parts = [
        _passed(diagnosis.passed, level + 1),
        _reasons("Not applicable", diagnosis.not_applicable, level + 1),
        _reasons("Skipped", diagnosis.skipped, level + 1),
        _list_sentences("Assumed", [str(sentence) for sentence in assumed], level + 1),
        _list_sentences("Not measured", [clean(text) for text in diagnosis.unmeasured], level + 1),
        _list_sentences(
            "May have changed, and cannot be put back",
            [clean(text) for text in diagnosis.not_put_back],
            level + 1,
        ),
    ]
    if not any(parts):
        return None
    counts = (
        ("passed", diagnosis.passed),
        ("not applicable", diagnosis.not_applicable),
        ("skipped", diagnosis.skipped),
    )
    tally = ", ".join(f"{len(verdicts)} {name}" for name, verdicts in counts if verdicts)
    said = [part for part in (assumed, diagnosis.unmeasured, diagnosis.not_put_back) if part]
    head = tag("summary", tally or "more", class_="uv-quiet")
    body = tag("div", parts, class_="uv-verdicts")
    return _section("What else was judged", level, tag("details", head, body, open="open" if said else None))


def _list_sentences(title: str, sentences: Sequence[str], level: int) -> Html | None:
    items = [tag("li", sentence) for sentence in sentences]
    return tag("div", tag(f"h{level}", title), tag("ul", items)) if items else None


def _passed(passed: Sequence[Verdict], level: int) -> Html | None:
    codes = [[tag("code", v.code, title=v.name), " "] for v in passed]
    return tag("div", tag(f"h{level}", f"Passed ({len(passed)})"), tag("p", codes)) if codes else None


def _reasons(title: str, verdicts: Sequence[Verdict], level: int) -> Html | None:
    if not verdicts:
        return None
    items = [
        tag("li", [[tag("code", v.code, title=v.name), " "] for v in group], tag("span", reason))
        for reason, group in group_by_reason(verdicts)
    ]
    return tag("div", tag(f"h{level}", f"{title} ({len(verdicts)})"), tag("ul", items))


def _footer(diagnosis: Diagnosis) -> Html:
    trace = diagnosis.trace
    torch = f" with torch {clean(trace.facts['torch'])}" if trace.facts.get("torch") else ""
    places = sum(site.role == "node" for site in trace.sites)
    how = "Measured in one batch, forward and backward"
    if trace.facts.get("predicted"):
        how = "Predicted from theory"
    elif trace.facts.get("live"):
        how = "Measured while it trained"
    text = (
        f"unvanish {__version__}{torch}. {how}, at {places:,} places: norms of gradients and activations."
        " The rules judge ratios: the scale of the loss does not matter."
    )
    return tag("footer", tag("p", text))
