"""The lines of a label file as numbers, as people's tools write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from unvanish.core.registry import suggest
from unvanish.lab.data.problems import Problem

MOST = 5000  # objects of an image
LINES = 2 * MOST
DIGITS = 60  # letters of a number
DECIMAL = re.compile(r"-?\d+,\d+")


@dataclass(frozen=True)
class LabelLine:
    """A line: its number, and its values (class, then coordinates)."""

    line: int
    values: tuple[float, ...]


def read_rows(text: str, file: str, names: Sequence[str]) -> tuple[list[LabelLine], list[Problem]]:
    """The lines that are numbers, what is wrong with the others, and what was read otherwise."""
    rows: list[LabelLine] = []
    problems: list[Problem] = []
    said: dict[str, Problem] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if number > LINES:
            problems.append(Problem(file, number, "too many labels", f"at most {LINES:,} lines are read"))
            break
        words, how = split_words(line)
        values, fault, more = read_values(words, names)
        if fault:
            problems.append(Problem(file, number, *fault))
            continue
        for sort, why in filter(None, (how, more)):
            said.setdefault(sort, Problem(file, number, sort, why))
        rows.append(LabelLine(number, values))
    rows, confidence = leave_out_confidence(rows, file)
    return rows, [*problems, *said.values(), *confidence]


def leave_out_confidence(rows: list[LabelLine], file: str) -> tuple[list[LabelLine], list[Problem]]:
    """Boxes without a sixth number from 0 to 1, unless there are polygons, whose pairs it might belong to."""
    first = next((row for row in rows if _has_confidence(row)), None)
    if first is None or any(len(row.values) > 6 for row in rows):
        return rows, []
    why = "the sixth number is taken for a confidence and left out"
    kept = [LabelLine(row.line, row.values[:5]) if _has_confidence(row) else row for row in rows]
    return kept, [Problem(file, first.line, "a confidence", why)]


def _has_confidence(row: LabelLine) -> bool:
    return len(row.values) == 6 and 0 <= row.values[-1] <= 1


def split_words(line: str) -> tuple[list[str], tuple[str, str] | None]:
    """The words of a line, and how they are parted if it is not by spaces."""
    words = line.split()
    if not set(line) & set(",;"):
        return words, None
    if len(words) > 4 and all(DECIMAL.fullmatch(word) for word in words[-4:]):
        return [word.replace(",", ".") for word in words], (
            "decimal commas",
            "decimal commas, read as points",
        )
    return [w for w in re.split(r"[,;\s]+", line.strip()) if w], ("commas", "parted by commas, not by spaces")


def read_values(
    words: Sequence[str], names: Sequence[str]
) -> tuple[tuple[float, ...], tuple[str, str] | None, tuple[str, str] | None]:
    """The values of a line; its fault, if it has one; and what was read otherwise."""
    if max(map(len, words)) > DIGITS:
        return (), ("not numbers", f"{max(words, key=len)[:60]!r}... is too long for a number"), None
    first = next((i for i, word in enumerate(words) if _is_number(word)), len(words))
    if not all(map(_is_number, words[first:])) or first == len(words):
        return (), ("not numbers", f"{' '.join(words)[:60]!r} is not all numbers"), None
    values = tuple(map(float, words[first:]))
    said = None
    if first:
        name = " ".join(words[:first]).strip("'\"")
        known = [n.casefold() for n in names]
        if name.casefold() not in known:
            return (), ("unknown class", f"no class {name[:60]!r}{_suggest_class(name, tuple(names))}"), None
        values = (float(known.index(name.casefold())), *values)
        said = ("names of classes", f"{name!r} instead of its number {int(values[0])}")
    return values, None, said


@lru_cache(maxsize=1000)
def _suggest_class(name: str, names: tuple[str, ...]) -> str:
    """The nearest class, sought once for each name: thousands of lines may be wrong alike."""
    return suggest(name, names)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
