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
    """The text `" (did you mean 'x'?)"` with the nearest known word; "" if none is near, or it is no word."""
    if not isinstance(wrong, str) or len(wrong) > LONGEST:
        return ""
    by_case = {k.casefold(): k for k in known}
    near = difflib.get_close_matches(wrong.casefold(), by_case, n=1, cutoff=0.65)
    return f" (did you mean {by_case[near[0]]!r}?)" if near else ""
