"""Lines of styled text that fit a width: wrapping by cells, hanging indents, columns.

Notable:
- Lines are built to fit, never left to the terminal: a name of 500 characters is broken, not run over.
- Widths count terminal cells, so wide characters (CJK, emoji) keep their columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.text import Text

Piece = str | tuple[str, str]


def wrap(text: str, width: int, first: int | None = None) -> list[str]:
    """Lines of at most `width` cells (the first of `first`); words longer than a line are broken."""
    lines, room = [""], width if first is None else first
    for word in text.split():
        gap = 1 if lines[-1] else 0
        if cell_len(lines[-1]) + gap + cell_len(word) <= room:
            lines[-1] += " " * gap + word
            continue
        pieces = chop_cells(word, max(width, 4)) if cell_len(word) > width else [word]
        lines += pieces
        room = width
    return lines[1:] if len(lines) > 1 and not lines[0] and first is None else lines


def pad(text: str, width: int) -> str:
    """Exactly `width` cells: padded on the right, or cut in the middle so that both ends of a path stay."""
    if cell_len(text) <= width:
        return text + " " * (width - cell_len(text))
    tail = max((width - 1) * 2 // 3, 1)
    head = set_cell_size(text, width - 1 - tail)
    return set_cell_size(f"{head}…{_last(text, tail)}", width)


def joined(*pieces: Piece) -> Text:
    """One line out of plain strings and (string, style) pairs."""
    return Text.assemble(*pieces, no_wrap=True, overflow="ignore")


def hang(head: Sequence[Piece], body: str, width: int, indent: int | str, style: str = "") -> list[Text]:
    """`head` and then `body`, wrapped; further lines start with `indent` (cells, or the text itself)."""
    lead = joined(*head)
    if cell_len(lead.plain) > width - 8:
        lead, body = joined(), f"{lead.plain.strip()} {body}"
    start = " " * indent if isinstance(indent, int) else indent
    lines = wrap(body, max(width - cell_len(start), 8), max(width - cell_len(lead.plain), 0))
    gutter = (start, "dim") if isinstance(indent, str) else start
    return [lead.append(lines[0], style or None), *(joined(gutter, (line, style)) for line in lines[1:])]


def _last(text: str, cells: int) -> str:
    while cell_len(text) > cells:
        text = text[1:]
    return text
