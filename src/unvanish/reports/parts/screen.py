"""Reports that fit a screen: as much as there is room for, what a reader misses most first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from rich.text import Text

D = TypeVar("D")


def fit_screen(
    write: Callable[[D], Sequence[Text]], least: D, wishes: Iterable[Mapping[str, Any]], height: int
) -> list[Text]:
    """The lines of `write` at the most detail that has at most `height` of them.

    It begins with `least`, a dataclass; each of `wishes` replaces fields of it, and is kept if the lines
    still fit. If the least does not fit, it is cut before its last line.
    """
    detail, best = least, list(write(least))
    if len(best) > height:
        return [*best[: height - 2], Text("...", "dim"), best[-1]]
    for wish in wishes:
        richer = replace(detail, **wish)  # type: ignore[type-var]
        lines = list(write(richer))
        if len(lines) <= height:
            detail, best = richer, lines
    return best
