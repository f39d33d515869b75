"""Text of any usual encoding: found by its bytes, or as the data YAML says; nothing is replaced.

Notable: UTF-8, UTF-16 and UTF-32 are certain, by their mark or their zeros; what is none of these is taken
for cp1252, or for latin-1 where that has no letter, and said. Broken bytes in a text that is else UTF-8 break
their line only.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from unvanish.lab.data.problems import DataError, Problems

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
PLAIN = ("utf-8", "utf-8-sig")
BROKEN, LETTERS = re.compile("[\udc80-\udcff]"), re.compile("[^\x00-\x7f\udc80-\udcff]")
ZEROS = 0.2  # share of bytes that are zero in UTF-16 of a Latin script, at least


def decode(content: bytes) -> tuple[str, str]:
    """The text that bytes hold, and its encoding; ValueError if they hold none.

    Broken bytes among letters of UTF-8 are kept as lone surrogates, see `is_whole`.
    """
    for mark, name in MARKS:
        if content.startswith(mark):
            return content.decode(name), name
    if 0 in content:
        name = _find_wide(content)
        text = content.decode(name) if name else ""
        if not name or "\0" in text:
            raise ValueError("it holds zero bytes, so it is no text")
        return text, name
    text = content.decode("utf-8", "surrogateescape")
    broken = len(BROKEN.findall(text))
    if broken == 0 or broken < len(LETTERS.findall(text)):
        return text, "utf-8"
    try:
        return content.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        return content.decode("latin-1"), "latin-1"


def is_whole(text: str) -> bool:
    """Whether a text holds no byte that could not be decoded."""
    return BROKEN.search(text) is None


def read_file(file: Path, encoding: str, problems: Problems) -> str:
    """The text of a file, as `find_text`; its broken lines are empty and told in `problems`."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    text = find_text(file, content, encoding, problems)
    if is_whole(text):
        return text
    return "\n".join(line or "" for line in whole_lines(file, text, encoding, problems))


def whole_lines(file: Path, text: str, encoding: str, problems: Problems) -> list[str | None]:
    """The lines of a text; None for those with bytes that could not be decoded, which are told."""
    found: list[str | None] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not is_whole(line):
            problems.add(file, number, "broken line", f"not {encoding or 'UTF-8'}")
        found.append(line if is_whole(line) else None)
    return found


def find_text(file: Path, content: bytes, encoding: str, problems: Problems) -> str:
    """The text that a file holds, in `encoding`, or as `decode` finds it (if empty); DataError if none.

    What is not UTF-8 is told in `problems`.
    """
    try:
        if encoding:
            return content.decode(encoding, "surrogateescape").removeprefix("\ufeff")
        text, found = decode(content)
    except (OSError, ValueError) as error:
        said = f"not {encoding}: " if isinstance(error, UnicodeDecodeError) and encoding else ""
        raise DataError(
            f"{file} cannot be read as text: {said}{error}; `encoding` names another one"
        ) from error
    if found not in PLAIN:
        problems.add(file, 0, "other encoding", f"not UTF-8, read as {found}; `encoding` names another one")
    return text


def _find_wide(content: bytes) -> str:
    """The byte order of UTF-16 without a mark, by which bytes are zero; empty if it is none."""
    even, odd = content[::2].count(0), content[1::2].count(0)
    if max(even, odd) < ZEROS * len(content) or len(content) % 2:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"
