"""How a noun prints, saves and displays itself: by renderers from outside; core has none.

Notable: `unvanish/__init__.py` calls `offer` when the package is imported. The renderers themselves are
loaded when something is first shown.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from unvanish.core.brief import Brief


class Renderers(Protocol):
    """What renders nouns: the functions of `unvanish.reports`."""

    def render(self, noun: Any, suffix: str) -> str:
        """The noun as a text file of this ending (.txt, .json, .html)."""

    def fragment(self, noun: Any) -> str:
        """The noun as HTML for a notebook."""

    def save(self, noun: Any, path: Path) -> Path:
        """Write the noun in the format of the file's ending; returns the path."""


_offered: list[Callable[[], Renderers]] = []


def offer(renderers: Callable[[], Renderers]) -> None:
    """Set how the renderers are loaded; the last call counts."""
    _offered[:] = [renderers]


class Shown(Brief):
    """A noun that prints itself, saves itself to a file, and displays itself in a notebook."""

    __slots__ = ()

    def save(self, path: str | Path) -> Path:
        """Write the report in the format of the file's ending; returns the path.

        ValueError for an ending without a renderer, OSError if the file cannot be written.
        """
        return _offered[-1]().save(self, Path(path))

    def __str__(self) -> str:
        return _offered[-1]().render(self, ".txt")

    def _repr_html_(self) -> str:
        return _offered[-1]().fragment(self)
