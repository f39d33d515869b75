"""Names of other people's making, as they are shown and as they become files.

Notable: a module, a class, a file or a run may be called anything, also what moves a cursor, reverses
the letters that follow, or begins a formula. Whatever shows a name, shows it through `show`.
"""

from __future__ import annotations

import re

FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet computes
LONGEST = 100  # letters of a file's name


def show(text: object) -> str:
    """The text in one line, with what cannot be seen or acts on a terminal written out as an escape."""
    line = str(text)
    return line if line.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in line)


def show_lines(text: object) -> str:
    """The same for a text of several lines, whose ends stay."""
    return "\n".join(map(show, str(text).split("\n")))


def show_cell(value: object) -> object:
    """A cell of a table; a text that a spreadsheet would compute begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    shown = show(value)
    return f"'{shown}" if shown.startswith(FORMULAS) else shown


def as_file_name(name: str) -> str:
    """A name without characters that have a meaning in paths."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".")[:LONGEST] or "_"


def _escape(letter: str) -> str:
    code = ord(letter)
    if letter in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[letter]
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
