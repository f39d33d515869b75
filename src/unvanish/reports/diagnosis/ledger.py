"""A ledger alone: as bars of characters, and as a waterfall in a notebook."""

from __future__ import annotations

from unvanish.core.ledger import Ledger
from unvanish.reports.diagnosis import ledger_html
from unvanish.reports.diagnosis.headline import describe_total
from unvanish.reports.diagnosis.ledger_text import draw_ledger
from unvanish.reports.parts.cell import render_cell
from unvanish.reports.parts.legend import LEDGER, draw_legend
from unvanish.reports.parts.markup import tag
from unvanish.reports.parts.sheet import SCREEN, fit_width, join_lines


def render(ledger: Ledger, width: int = 80, height: int = SCREEN) -> str:
    """The ledger as plain text, of at most `height` lines."""
    for budget in (16, 12, 8, 6, 4, 1):
        lines = draw_ledger(ledger, fit_width(width), budget)
        if len(lines) <= height:
            break
    return join_lines(lines) or "an empty ledger\n"


def fragment(ledger: Ledger) -> str:
    """The waterfall, with its own style."""
    if not ledger.rows:
        return render_cell(tag("p", "An empty ledger."))
    head = tag("h3", "Where the gradient goes")
    lead = tag("p", f"{describe_total(ledger.total)}.", class_="uv-quiet")
    return render_cell([head, lead, draw_legend(*LEDGER), ledger_html.draw_waterfall(ledger)])
