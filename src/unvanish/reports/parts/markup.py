"""HTML and SVG elements that escape by construction: every text is escaped, except `Html`."""

from __future__ import annotations

import html
from collections.abc import Iterable

from unvanish.reports.parts.words import clean

VOID = frozenset({"br", "meta", "hr", "rect", "line", "path", "circle", "polyline", "polygon"})


class Html(str):
    """Text that is already markup."""

    __slots__ = ()


Content = str | Html | None | Iterable["Content"]


def tag(name: str, /, *content: Content, **attributes: object) -> Html:
    """An element: `tag("p", text, class_="note")`; None attributes are left out, `_` becomes `-`."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-") if key != "viewBox" else key}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID and not content:
        return Html(f"<{name}{pairs}/>")
    return Html(f"<{name}{pairs}>{join(content)}</{name}>")


def join(content: Content) -> Html:
    """Contents one after the other, escaped unless they are `Html`."""
    if content is None:
        return Html("")
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        end = _edge(content[-1:]) if content.strip() else ""
        return Html(_edge(content[:1]) + html.escape(clean(content)) + end)
    return Html("".join(join(item) for item in content))


def _edge(character: str) -> str:
    """A blank for white space at the start or end of a text, which `clean` removes."""
    return " " if character.isspace() else ""


def _attribute(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else html.escape(clean(value))
