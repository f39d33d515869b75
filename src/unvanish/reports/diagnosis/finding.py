"""One finding: as a compiler's message, and as a card in a notebook."""

from __future__ import annotations

from unvanish.core.diagnosis import Finding
from unvanish.reports.diagnosis import cards
from unvanish.reports.diagnosis.detail import WHOLE
from unvanish.reports.diagnosis.findings_text import describe_finding
from unvanish.reports.parts.cell import render_cell
from unvanish.reports.parts.sheet import fit_width, join_lines


def render(finding: Finding, width: int = 80) -> str:
    """The whole finding as plain text, in lines of at most `width` cells (60 to 100)."""
    return join_lines(describe_finding(finding, {}, fit_width(width), WHOLE))


def fragment(finding: Finding) -> str:
    """The card, with its own style."""
    return render_cell(cards.draw_card(finding, 3))
