"""A picture for a README: one SVG without script, font or link, that is its own ground, light and dark.

Notable:
- It is laid out from the top down; text is broken by an estimate of its width, since SVG breaks none.
- Names are other people's: `markup.tag` escapes them, and what XML cannot hold is escaped by `clean`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from rich.cells import cell_len

from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.palette import write_style
from unvanish.reports.parts.sheet import wrap
from unvanish.reports.parts.words import clean

WIDTH, EDGE = 880, 32
LETTER = 0.56  # of the font's size: the width of a letter, a little more than the mean
INDENT = 8  # pixels that the names of a chart's axis may begin before the edge
BOX = re.compile(r'viewBox="0 0 (\d+) (\d+)"')
XML = {"version": "1.1", "xmlns": "http://www.w3.org/2000/svg"}


@dataclass
class Sheet:
    """A picture that grows downwards; `y`: the pixels used so far."""

    verdict: str
    y: float = 26.0
    parts: list[Html] = field(default_factory=list)

    def write(self, text: str, style: str = "", size: float = 15, most: int = 1, left: float = EDGE) -> None:
        """Lines of text, at most so many; what is left is an ellipsis."""
        for line in break_text(text, WIDTH - left - EDGE, size, most):
            self.y += size * 1.42
            self.parts.append(tag("text", line, x=left, y=self.y, class_=style or None))

    def head(self, brand: str, subject: str, word: str, sentence: str) -> None:
        """The name of the verb, the subject, the verdict as a pill, and its sentence."""
        self.write(f"unvanish {brand}", "small", 13)
        self.y += 4
        self.write(subject, "title", 24)
        self.y += 14
        width = 24 + len(word) * 13 * LETTER
        pill = tag("rect", x=float(EDGE), y=self.y, width=width, height=24.0, rx=12.0, class_="pill")
        name = tag(
            "text", word, x=EDGE + width / 2, y=self.y + 16.5, text_anchor="middle", class_="pill-text"
        )
        self.parts += [pill, name]
        self.y += 24
        self.write(sentence, "ink", 16, 2)
        self.y += 4

    def draw(self, chart: Html) -> None:
        """A chart of the pages, between the edges."""
        found = BOX.search(chart)
        wide, high = (float(found[1]), float(found[2])) if found else (880.0, 300.0)
        width = WIDTH - 2 * EDGE + INDENT
        height = width * high / wide
        size = f'<svg x="{EDGE - INDENT}" y="{self.y + 12:.0f}" width="{width}" height="{height:.0f}" '
        self.parts.append(Html(chart.replace("<svg ", size, 1)))
        self.y += height + 12

    def finish(self, caption: str) -> str:
        """The whole picture; `caption` is what a screen reader says."""
        height = self.y + 24
        style = tag("style", Html(write_style(self.verdict)))
        ground = tag("rect", x=0.5, y=0.5, width=WIDTH - 1.0, height=height - 1, rx=14.0, class_="ground")
        whole = tag(
            "svg",
            tag("title", caption),
            style,
            ground,
            self.parts,
            **XML,
            width=WIDTH,
            height=round(height),
            viewBox=f"0 0 {WIDTH} {height:.0f}",
            role="img",
        )
        return f"{whole}\n"


def break_text(text: str, width: float, size: float, most: int) -> list[str]:
    """The text in at most `most` lines of about `width` pixels."""
    cells = max(int(width / (size * LETTER)), 8)
    lines = wrap(clean(text), cells)
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while cell_len(last) > cells - 2:
        last = last[:-1]
    return [*lines[: most - 1], f"{last} …"]
