"""Kinds of data, one a file, found by being there: how a data set of that kind is read.

A file says `TASKS` (what it serves, the usual one first) and `read(source, *, ...)`, whose keyword arguments
are the settings that a data YAML may give; its docstring is its page. `read` returns a `Content`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of data: its name, what it serves, its settings, and how it is read."""

    name: str
    module: ModuleType

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that such data serve, the usual one first."""
        return tuple(self.module.TASKS)

    @property
    def page(self) -> str:
        """The kind's documentation, its file's docstring."""
        return inspect.cleandoc(self.module.__doc__ or "")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings a data YAML may give, with their defaults."""
        parameters = inspect.signature(self.module.read).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


@cache
def kinds() -> Mapping[str, Kind]:
    """Every kind by name."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            found[info.name] = Kind(info.name, importlib.import_module(f"{__name__}.{info.name}"))
    return dict(sorted(found.items()))


def kind(name: str) -> Kind:
    """The kind of a name that exists."""
    return kinds()[name]
