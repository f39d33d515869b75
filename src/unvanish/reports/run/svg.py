"""A run as a picture: verdict, loss and gradient over the steps, the flow, the worst findings."""

from __future__ import annotations

from unvanish.reports.parts.picture import EDGE, Sheet
from unvanish.reports.parts.words import cap, clean
from unvanish.reports.run.panels import draw_panels
from unvanish.reports.run.story_html import PILLS
from unvanish.reports.run.text import read_story
from unvanish.reports.run.verdict import rank_spotted
from unvanish.store import Run

TONES = {"fine": "good", "warning": "warning", "error": "error", "unseen": "quiet"}
FINDINGS = 2


def render(run: Run) -> str:
    """The picture as SVG."""
    story = read_story(run)
    word = story.verdict.word if story.verdict is not None else "unseen"
    sentence = story.verdict.sentence if story.verdict is not None else "no step has been written yet"
    sheet = Sheet(TONES[word])
    brief = story.verdict.brief if story.verdict is not None else ""
    sheet.head("run", run.name, PILLS[word], brief or sentence)
    for line in story.length[:1]:
        sheet.write(line, "small", 13)
    for panel in draw_panels(story.history, story.trace, story.spotted):
        sheet.draw(panel)
    shown, rest = cap(rank_spotted(list(story.spotted)), FINDINGS)
    for one in shown:
        sheet.y += 8
        sheet.write(f"{one.finding.code} {one.finding.name} ({one.when})", "ink bold", 15)
        sheet.write(one.finding.cause, "ink", 15, 2, left=float(EDGE))
        for remedy in one.finding.remedies[:1]:
            sheet.write(f"remedy: {remedy.cure}: {remedy.why}", "quiet", 15, 1)
    if rest:
        sheet.write(f"and {rest} more findings", "small", 13)
    return sheet.finish(f"unvanish: the training {clean(run.name)}: {sentence}")
