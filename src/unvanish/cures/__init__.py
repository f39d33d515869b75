"""One cure a file: each applies one remedy to a module through a `Surgery`, which can take it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from unvanish.core import registry
from unvanish.core.diagnosis import Case, Remedy, Safety
from unvanish.core.names import show
from unvanish.core.trace import Trace
from unvanish.cures._settings import find_setting_fault


@dataclass(frozen=True)
class Cure:
    """One cure: its name, page and settings, and how it is planned, applied and written as code."""

    name: str
    module: ModuleType

    @property
    def safety(self) -> Safety:
        """What it keeps: "exact" keeps the function, "retrain" does not, "advice" is not applied."""
        found: Safety = self.module.SAFETY
        return found

    @property
    def page(self) -> str:
        """The cure's documentation, its file's docstring."""
        return registry.page(self.module)

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments of the cure's `apply`, with their defaults."""
        return registry.settings(self.module.apply)

    def plan(self, trace: Trace, remedy: Remedy) -> tuple[Remedy, ...]:
        """The remedy made concrete for the network of a trace; empty if there is nothing for it to do."""
        made = getattr(self.module, "plan", None)
        return (remedy,) if made is None else tuple(made(trace, remedy))

    def apply(self, surgery: Any, targets: tuple[str, ...], **settings: Any) -> None:
        """Make the change; a SurgeryError says why it cannot be made."""
        self.module.apply(surgery, tuple(targets), **settings)

    def code(self, remedy: Remedy) -> list[str]:
        """The lines of PyTorch that do the same by hand; ValueError for settings it cannot have."""
        if fault := self.find_fault(remedy.parameters):
            raise ValueError(fault)
        try:
            return list(self.module.code(remedy))
        except (KeyError, ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(f"{self.name} cannot have these settings: {error}") from error

    def find_fault(self, given: Mapping[str, Any]) -> str:
        """What is wrong with settings for `apply`, in one sentence, or an empty text."""
        known = self.settings
        for name, value in given.items():
            if name not in known:
                return f"{self.name} has no parameter {name!r}{registry.suggest(str(name), known)}"
            if fault := find_setting_fault(value, known[name]):
                return f"{self.name}: {name} must be {fault}, it is {show(repr(value))[:80]}"
        return ""

    def case(self) -> tuple[Case, Remedy]:
        """A small model on which the cure can be applied, and the remedy to apply."""
        found: tuple[Case, Remedy] = self.module.case()
        return found


@cache
def cures() -> Mapping[str, Cure]:
    """Every cure by name, in alphabetical order."""
    found = {file.replace("_", "-"): module for file, module in registry.modules(__name__, __path__)}
    return {name: Cure(name, found[name]) for name in sorted(found)}


def cure(key: str) -> Cure:
    """A cure by its name; KeyError suggests the nearest one."""
    table = cures()
    if key not in table:
        raise KeyError(f"no cure {key!r}{registry.suggest(key, table)}; `unvanish cures` lists them")
    return table[key]
