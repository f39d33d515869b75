"""A watched training as an article: verdict, panels, what happened when, what was found, notes."""

from __future__ import annotations

from collections.abc import Sequence

from unvanish.reports.diagnosis import cards
from unvanish.reports.parts.legend import LEDGER, draw_legend
from unvanish.reports.parts.markup import Content, Html, tag
from unvanish.reports.parts.page import read_style
from unvanish.reports.parts.words import cap, clean, plural
from unvanish.reports.run.lines import RunStory
from unvanish.reports.run.panels import draw_panels
from unvanish.reports.run.verdict import rank_spotted

FINDINGS, MOMENTS, NOTES = 4, 12, 6  # shown
PILLS = {"fine": "healthy", "warning": "faulty", "error": "faulty", "unseen": "unmeasured"}  # by verdict


def draw_story(story: RunStory, verb: str, subject: str, level: int, style: str = "uv") -> Html:
    """The article, its first heading at this level."""
    word = PILLS[story.verdict.word] if story.verdict is not None else "unmeasured"
    article = tag(
        "article",
        _header(story, verb, subject, word, level),
        _findings(story, level + 1),
        _timeline(story, level + 1),
        _notes(story.notes, level + 1),
    )
    return tag("div", tag("style", Html(read_style())), article, class_=f"{style} uv-is-{word}")


def _header(story: RunStory, verb: str, subject: str, word: str, level: int) -> Html:
    panels = draw_panels(story.history, story.trace, story.spotted)
    flow = bool(panels) and "uv-heat" in panels[-1]
    legend = draw_legend(*LEDGER) if flow else None
    facts: list[Content] = [tag("li", part) for line in story.length for part in line.split(", ")]
    return tag(
        "header",
        tag("p", tag("b", "unvanish"), f" {verb}", class_="uv-brand"),
        tag(f"h{level}", subject),
        tag("p", word, class_="uv-pill"),
        tag("p", story.verdict.sentence, class_="uv-sentence") if story.verdict is not None else None,
        tag("ul", facts, class_="uv-facts"),
        [tag("figure", panel) for panel in panels],
        legend,
    )


def _findings(story: RunStory, level: int) -> Html | None:
    found = rank_spotted(list(story.spotted))
    if not found:
        return None
    shown, rest = cap(found, FINDINGS)
    more = tag("p", f"and {plural(rest, 'more finding')}", class_="uv-more") if rest else None
    return tag(
        "section", tag(f"h{level}", "Findings"), [cards.draw_card(s.finding, level + 1) for s in shown], more
    )


def _timeline(story: RunStory, level: int) -> Html | None:
    shown, rest = cap(story.moments, MOMENTS)
    items = [
        tag(
            "li",
            tag("b", f"step {m.step}"),
            tag("span", m.text, class_=f"uv-{m.severity}" if m.severity else None),
        )
        for m in shown
    ]
    more = tag("p", f"and {rest} more", class_="uv-more") if rest else None
    return (
        tag("section", tag(f"h{level}", "What happened when"), tag("ul", items, class_="uv-moments"), more)
        if items
        else None
    )


def _notes(notes: Sequence[str], level: int) -> Html | None:
    shown, rest = cap(notes, NOTES)
    items = [tag("li", clean(note)) for note in shown]
    more = tag("p", f"and {rest} more", class_="uv-more") if rest else None
    return tag("section", tag(f"h{level}", "Not seen"), tag("ul", items), more) if items else None
