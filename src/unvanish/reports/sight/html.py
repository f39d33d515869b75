"""What a watch has seen, as a page or as the output of a notebook's cell."""

from __future__ import annotations

import html

from unvanish.core.sight import Sight
from unvanish.reports.diagnosis import cards
from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.page import read_style, render_page
from unvanish.reports.parts.words import cap, clean, plural
from unvanish.reports.run.curves import draw_curves
from unvanish.reports.run.timeline import Moment, list_moments
from unvanish.reports.sight.text import FINDINGS, describe_sight, judge, list_worst

PILLS = {"fine": "healthy", "warning": "faulty", "error": "faulty", "unseen": "unmeasured"}  # by verdict
LINE = "font: 12px/1.5 ui-monospace, monospace; overflow-x: auto; white-space: pre; margin: 0.8rem 0 0;"


def render(sight: Sight) -> str:
    """One self-contained HTML page."""
    return render_page(f"{sight.diagnosis.subject} - unvanish", _article(sight, level=1))


def fragment(sight: Sight) -> str:
    """The report as one element with its own style, for a notebook's cell."""
    return str(_article(sight, level=2))


def _article(sight: Sight, level: int) -> Html:
    verdict, trace = judge(sight), sight.diagnosis.trace
    word = PILLS[verdict.word]
    history = trace.facts.get("history", {})
    spotted = list_worst(sight)
    shown, rest = cap(spotted, FINDINGS)
    header = tag(
        "header",
        tag("p", tag("b", "unvanish"), " watch", class_="uv-brand"),
        tag(f"h{level}", sight.diagnosis.subject),
        tag("p", word, class_="uv-pill"),
        tag("p", verdict.sentence, class_="uv-sentence"),
        tag("ul", [tag("li", part) for part in describe_sight(sight).split(", ")], class_="uv-facts"),
        _draw_curves(draw_curves(history, trace)),
    )
    findings = [
        tag("p", f"and {plural(rest, 'more finding')}: .diagnosis() has all", class_="uv-more")
        if rest
        else None
    ]
    found = [
        tag(f"h{level + 1}", "Findings"),
        [cards.draw_card(s.finding, level + 2) for s in shown],
        findings,
    ]
    article = tag(
        "article",
        header,
        tag("section", found) if spotted else None,
        _timeline(list_moments(history, trace, spotted), level + 1),
        _notes(sight, level + 1),
    )
    return tag("div", tag("style", Html(read_style())), article, class_=f"uv uv-is-{word}")


def _draw_curves(lines: list[str]) -> Html | None:
    """The sparklines, with their columns."""
    text = html.escape("\n".join(line.removeprefix("  ") for line in lines))
    return tag("pre", Html(text), style=LINE) if lines else None


def _timeline(moments: list[Moment], level: int) -> Html | None:
    items = [tag("li", tag("b", f"step {m.step}: "), m.text) for m in moments]
    return tag("section", tag(f"h{level}", "What happened when"), tag("ul", items)) if items else None


def _notes(sight: Sight, level: int) -> Html | None:
    items = [tag("li", clean(note)) for note in sight.notes]
    return tag("section", tag(f"h{level}", "Not seen"), tag("ul", items)) if items else None
