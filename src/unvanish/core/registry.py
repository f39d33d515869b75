"""A folder is a registry, a signature is its settings: what rules, cures, tasks and kinds of data share."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

LONGEST = 80  # letters of a word that is like another


def modules(folder: str, path: Iterable[str]) -> Iterator[tuple[str, ModuleType]]:
    """The modules of a package that do not begin with an underscore, each with its file's name.

    `folder`: the package's dotted name; `path`: its `__path__`.
    """
    for info in pkgutil.iter_modules(path):
        if not info.name.startswith("_"):
            yield info.name, importlib.import_module(f"{folder}.{info.name}")


def page(module: ModuleType) -> str:
    """A module's documentation: its docstring without the indentation."""
    return inspect.cleandoc(module.__doc__ or "")


def settings(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only arguments of a function, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def suggest(wrong: Any, known: Iterable[str]) -> str:
    """The text `" (did you mean 'x'?)"` with the nearest known word, or two that are as near.

    Empty if none is near, or `wrong` is no word.
    """
    if not isinstance(wrong, str) or len(wrong) > LONGEST:
        return ""
    by_case = {k.casefold(): k for k in known}
    word = wrong.casefold()
    near = difflib.get_close_matches(word, by_case, n=2, cutoff=0.65)
    if len(near) == 2 and _ratio(word, near[0]) > _ratio(word, near[1]):
        near = near[:1]
    return f" (did you mean {' or '.join(repr(by_case[n]) for n in sorted(near))}?)" if near else ""


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, one).ratio()
