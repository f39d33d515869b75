"""Lines of styled text that fit a width: wrapping by cells, hanging indents, columns.

Notable:
- Lines are wrapped here, never by the terminal: a name of 500 characters is broken across lines.
- Widths count terminal cells, so wide characters (CJK, emoji) keep their columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console
from rich.text import Text

from unvanish.reports.parts.bars import ASCII

Piece = str | tuple[str, str]
NARROW, WIDE = 60, 100  # cells
SCREEN, TALL = 24, 60  # lines of a screen, if it is unknown; lines of a report on a tall one, at most


def fit_width(width: int) -> int:
    """The width of a report in a terminal of `width` cells."""
    return min(max(width, NARROW), WIDE)


def fit_height(console: Console) -> int:
    """The lines of a report on this console: a terminal's own, less one for the prompt; else a screen."""
    return max(min(console.height, TALL), SCREEN) - 1 if console.is_terminal else SCREEN


def print_lines(lines: Iterable[Text], console: Console) -> None:
    """Print lines as they are; a console that cannot show Unicode gets ASCII."""
    unicode = console.encoding.lower().replace("-", "").startswith("utf")
    for line in lines:
        if not unicode:
            line.plain = line.plain.translate(ASCII).encode("ascii", "replace").decode("ascii")
        console.print(line, soft_wrap=True, highlight=False)


def join_lines(lines: Iterable[Text]) -> str:
    """The lines as plain text without escape codes."""
    return "".join(f"{line.plain.rstrip()}\n" for line in lines)


def separate(blocks: Iterable[Sequence[Text]]) -> Iterator[Text]:
    """The lines of the blocks that are not empty, with one blank line between blocks."""
    for index, block in enumerate([b for b in blocks if b]):
        if index:
            yield Text()
        yield from block


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


def assemble(*pieces: Piece) -> Text:
    """One line out of plain strings and (string, style) pairs."""
    return Text.assemble(*pieces, no_wrap=True, overflow="ignore")


def hang(head: Sequence[Piece], body: str, width: int, indent: int | str, style: str = "") -> list[Text]:
    """`head` and then `body`, wrapped; further lines start with `indent` (cells, or the text itself)."""
    lead = assemble(*head)
    if cell_len(lead.plain) > width - 8:
        lead, body = assemble(), f"{lead.plain.strip()} {body}"
    start = " " * indent if isinstance(indent, int) else indent
    lines = wrap(body, max(width - cell_len(start), 8), max(width - cell_len(lead.plain), 0))
    gutter = (start, "dim") if isinstance(indent, str) else start
    return [lead.append(lines[0], style or None), *(assemble(gutter, (line, style)) for line in lines[1:])]


def clip(lines: Sequence[Text], most: int) -> list[Text]:
    """The first `most` lines; dots stand for the others."""
    if len(lines) <= most:
        return list(lines)
    last = lines[most - 1].copy()
    last.truncate(max(last.cell_len - 4, 0), overflow="crop")
    return [*lines[: most - 1], last.append(" ...", "dim")]


def _last(text: str, cells: int) -> str:
    while cell_len(text) > cells:
        text = text[1:]
    return text
