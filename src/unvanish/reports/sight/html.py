"""What a watch has seen, as a page or as the output of a notebook's cell."""

from __future__ import annotations

from unvanish.core.sight import Sight
from unvanish.reports.parts.page import render_report
from unvanish.reports.run.story_html import draw_story
from unvanish.reports.sight.text import tell_story


def render(sight: Sight) -> str:
    """One self-contained HTML page."""
    article = draw_story(tell_story(sight), "watch", sight.diagnosis.subject, 1)
    return render_report(f"{sight.diagnosis.subject} - unvanish", article)


def fragment(sight: Sight) -> str:
    """The report as one element with its own style, for a notebook's cell."""
    return str(draw_story(tell_story(sight), "watch", sight.diagnosis.subject, 2, "uv uv-cell"))
