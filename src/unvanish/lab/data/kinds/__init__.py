"""Kinds of data, one per file, each file of this folder: how a data set of that kind is read.

A file defines `TASKS` (the tasks it serves, the usual one first) and `read(source, *, ...)`, whose keyword
arguments are the settings of a data YAML; its docstring is its page. `read` returns a `Content`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from unvanish.core import registry


@dataclass(frozen=True)
class Kind:
    """One kind of data: its name, tasks, settings and reader."""

    name: str
    module: ModuleType

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that such data serve, the usual one first."""
        return tuple(self.module.TASKS)

    @property
    def page(self) -> str:
        """The kind's documentation, its file's docstring."""
        return registry.page(self.module)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings a data YAML may give, with their defaults."""
        return registry.settings(self.module.read)


@cache
def kinds() -> Mapping[str, Kind]:
    """Every kind by name, in alphabetical order."""
    found = dict(registry.modules(__name__, __path__))
    return {name: Kind(name, found[name]) for name in sorted(found)}
