"""A legend: swatches with their meaning, in place of sentences about colours."""

from __future__ import annotations

from unvanish.reports.parts.markup import Html, tag

LEDGER = (("loss", "loses gradient"), ("gain", "gains gradient"))
VOID = ("void", "lets none through")


def draw_legend(*entries: tuple[str, str]) -> Html:
    """Entries of a style class (`loss`, `gain`, `void`, `before`, `after`) and what it means."""
    items = [
        tag("li", tag("i", class_=f"uv-key uv-{style}", aria_hidden="true"), text) for style, text in entries
    ]
    return tag("ul", items, class_="uv-legend")
