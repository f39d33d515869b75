"""The frame of a page: a self-contained HTML document around an article, and the style of articles."""

from __future__ import annotations

from pathlib import Path

from unvanish.core.version import __version__
from unvanish.reports.parts.markup import Content, Html, tag
from unvanish.reports.parts.words import clean

STYLE = Path(__file__).with_name("report.css")
GROUND = "html{background:light-dark(#f3f4f6,#0c1015);color-scheme:light dark}body{margin:0}"


def render_page(title: str, *body: Content, style: str = GROUND) -> str:
    """A whole document; `style` is that of the page, the body may have its own."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"unvanish {__version__}"),
        tag("title", clean(title)),
        tag("style", Html(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en')}\n"


def read_style() -> str:
    """The style of a report's article; everything in it is under the class `uv`."""
    return STYLE.read_text(encoding="utf-8")
