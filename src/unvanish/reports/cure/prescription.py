"""A prescription alone, in a notebook: its steps, the same by hand, and its YAML."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

from unvanish.core.diagnosis import Remedy
from unvanish.reports.cure.html import STYLE, draw_steps
from unvanish.reports.parts.cell import render_cell
from unvanish.reports.parts.code import draw_code
from unvanish.reports.parts.markup import tag


class Prescribed(Protocol):
    """What a prescription offers: the clinic's own class, which the reports do not know."""

    remedies: Sequence[Remedy]

    def script(self) -> str:
        """The remedies as a Python file."""

    def yaml(self) -> str:
        """The remedies as YAML."""


def fragment(prescription: Prescribed) -> str:
    """The steps and the code, with their own style."""
    if not prescription.remedies:
        return render_cell(tag("p", "Nothing is prescribed."))
    steps = [list(step) for _, step in groupby(prescription.remedies, key=lambda remedy: remedy.cure)]
    code = tag(
        "details", tag("summary", "by hand, in PyTorch"), draw_code(prescription.script(), button=False)
    )
    text = tag("details", tag("summary", "as YAML"), draw_code(prescription.yaml(), button=False))
    style = STYLE.read_text(encoding="utf-8")
    return render_cell([tag("h3", "Prescription"), draw_steps(steps), code, text], style=style)
