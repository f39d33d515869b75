"""The frame of a page: a self-contained HTML document around an article, and the style of articles.

Notable: a page fetches nothing, and its policy says so; the only script that may run in it is ours, by its
hash, and it is there only if the page has code to copy.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from unvanish.core.version import __version__
from unvanish.reports.parts.markup import Content, Html, tag
from unvanish.reports.parts.words import clean

STYLE = Path(__file__).with_name("report.css")
SCRIPT = Path(__file__).with_name("copy.js")
GROUND = "html{background:light-dark(#f3f4f6,#0c1015);color-scheme:light dark}body{margin:0}"
PAPER = "@page{margin:14mm}@media print{html{background:none;color-scheme:light}}"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def render_page(
    title: str, *body: Content, style: str = GROUND, policy: str = "", end: Content = None
) -> str:
    """A whole document; `style`: of the page, the body may have its own; `policy`: what it may load."""
    rule = tag("meta", http_equiv="Content-Security-Policy", content=policy) if policy else None
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        rule,
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"unvanish {__version__}"),
        tag("title", clean(title)),
        tag("style", Html(style + PAPER)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body, end), lang='en')}\n"


def render_report(title: str, article: Html) -> str:
    """A page around an article, with the script that copies code if the article has any."""
    if 'class="uv-copy"' not in article:
        return render_page(title, article, policy=POLICY)
    script = SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"{POLICY}; script-src 'sha256-{digest}'"
    return render_page(title, article, policy=policy, end=tag("script", Html(script)))


def read_style() -> str:
    """The style of a report's article; everything in it is under the class `uv`."""
    return STYLE.read_text(encoding="utf-8")
