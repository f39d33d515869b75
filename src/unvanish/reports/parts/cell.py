"""What a notebook shows of a small noun: an element with the style of a report's article."""

from __future__ import annotations

from unvanish.reports.parts.markup import Content, Html, tag
from unvanish.reports.parts.page import read_style


def render_cell(*sections: Content, style: str = "", kind: str = "") -> str:
    """The sections, each a card, with their style; `style`: more of it, `kind`: further classes."""
    shown = [tag("section", section) for section in sections if section]
    sheet = tag("style", Html(read_style() + style))
    return str(tag("div", sheet, tag("article", shown), class_=f"uv uv-cell{f' {kind}' if kind else ''}"))
