"""The commands, one a file, found by being there.

A file holds a function of its own name, which is the command, and `ORDER`, its place on the help page;
`CONTEXT`, typer's settings, if it reads its options itself. Every file is imported when the program starts,
so it imports what is heavy inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from unvanish.core.registry import modules

__all__ = ["Verb", "find_verbs"]


@dataclass(frozen=True)
class Verb:
    """One command: what runs it, its place on the help page, and its settings of typer's context."""

    run: Callable[..., None]
    order: int
    context: Mapping[str, Any]


def find_verbs() -> list[Verb]:
    """Every command, in the order of the help page."""
    found = [
        Verb(getattr(module, name), module.ORDER, getattr(module, "CONTEXT", {}))
        for name, module in modules(__name__, __path__)
    ]
    return sorted(found, key=lambda verb: verb.order)
