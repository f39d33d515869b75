"""Code on a page: with its line breaks and indentation, and a button that copies it."""

from __future__ import annotations

import html

from unvanish.core.names import show
from unvanish.reports.parts.markup import Html, tag


def draw_code(text: str, *, button: bool = True) -> Html:
    """The code; its button is shown only if the page's script runs."""
    lines = [Html(html.escape(show(line))) for line in text.rstrip("\n").split("\n")]
    code = tag("pre", tag("code", Html("\n".join(lines))))
    press = tag("button", "Copy", type="button", class_="uv-copy", hidden="hidden") if button else None
    return tag("div", press, code, class_="uv-code")
