"""A run as a notebook shows it: drawn without a chart library, a page has more (`save("run.html")`)."""

from __future__ import annotations

from unvanish.reports.run.story_html import draw_story
from unvanish.reports.run.text import read_story
from unvanish.store import Run


def fragment(run: Run) -> str:
    """The report as one element with its own style."""
    return str(draw_story(read_story(run), "run", run.name, 2, "uv uv-cell"))
