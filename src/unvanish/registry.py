"""A folder is a registry, a signature is its settings: rules and reports are found by being there."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Any

from unvanish.types import Case, Finding, Remedy, Safety, Trace

RULE_FILE = re.compile(r"^([a-z]{3}\d{3})_([a-z0-9_]+)$")
REPORTS = {
    "diagnosis": {".txt": "text", ".json": "json", ".html": "html"},
    "treatment": {".txt": "treatment_text", ".html": "treatment_html"},
}


@dataclass(frozen=True)
class Rule:
    """One rule: code, name, what it needs, its documentation page, and its functions."""

    code: str
    name: str
    module: ModuleType

    @cached_property
    def needs(self) -> frozenset[str]:
        """What a trace must hold: any of static, step, history, time, attention, precision."""
        return frozenset(self.module.NEEDS)

    @property
    def explains(self) -> frozenset[str]:
        """Codes of findings that are consequences of this one where both are found."""
        return frozenset(getattr(self.module, "EXPLAINS", ()))

    @property
    def yields(self) -> bool:
        """Whether any other finding is taken for its cause."""
        return bool(getattr(self.module, "YIELDS", False))

    @property
    def live(self) -> bool:
        """Whether it can judge what a watched training shows."""
        return "history" in self.needs or bool(getattr(self.module, "LIVE", False))

    @property
    def at_once(self) -> bool:
        """Whether a live finding is said at once, not after several looks in a row."""
        return bool(getattr(self.module, "AT_ONCE", False))

    @property
    def page(self) -> str:
        """The rule's documentation, its file's docstring."""
        return inspect.cleandoc(self.module.__doc__ or "")

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments of the rule's `check`, with their defaults."""
        parameters = inspect.signature(self.module.check).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def check(self, trace: Trace, **settings: Any) -> list[Finding]:
        """The findings of this rule on a trace; raises NotApplicable with a reason."""
        return list(self.module.check(trace, **settings))

    def case(self, which: str) -> Case:
        """The rule's `sick` or `healthy` model."""
        build: Callable[[], Case] = getattr(self.module, which)
        return build()


@cache
def rules() -> Mapping[str, Rule]:
    """Every rule by code, in the order of the codes."""
    import unvanish.rules as folder

    found = {}
    for info in pkgutil.iter_modules(folder.__path__):
        match = RULE_FILE.match(info.name)
        if match:
            code, name = match[1].upper(), match[2].replace("_", "-")
            found[code] = Rule(code, name, importlib.import_module(f"{folder.__name__}.{info.name}"))
    return dict(sorted(found.items()))


def rule(key: str) -> Rule:
    """A rule by its code or its name; KeyError suggests the nearest one."""
    table = rules()
    names = {r.name: r for r in table.values()}
    found = table.get(key.upper()) or names.get(key.lower())
    if found is None:
        raise KeyError(f"no rule {key!r}{suggest(key, [*table, *names])}; `unvanish rules` lists them")
    return found


@dataclass(frozen=True)
class Cure:
    """One cure: its name, page and settings, and how it is planned, applied and written."""

    name: str
    module: ModuleType

    @property
    def safety(self) -> Safety:
        """What it keeps: "exact" the function, "retrain" nothing, "advice" is not applied."""
        found: Safety = self.module.SAFETY
        return found

    @property
    def page(self) -> str:
        """The cure's documentation, its file's docstring."""
        return inspect.cleandoc(self.module.__doc__ or "")

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments of the cure's `apply`, with their defaults."""
        parameters = inspect.signature(self.module.apply).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def plan(self, trace: Trace, remedy: Remedy) -> tuple[Remedy, ...]:
        """The remedy made concrete for the network of a trace; empty where it has nothing to do there."""
        made = getattr(self.module, "plan", None)
        return (remedy,) if made is None else tuple(made(trace, remedy))

    def apply(self, surgery: Any, targets: tuple[str, ...], **settings: Any) -> None:
        """Make the change; a SurgeryError says why it cannot be made."""
        self.module.apply(surgery, tuple(targets), **settings)

    def code(self, remedy: Remedy) -> list[str]:
        """The lines of PyTorch that do the same by hand."""
        return list(self.module.code(remedy))

    def case(self) -> tuple[Case, Remedy]:
        """A small model on which the cure can be applied, and the remedy to apply."""
        found: tuple[Case, Remedy] = self.module.case()
        return found


@cache
def cures() -> Mapping[str, Cure]:
    """Every cure by name, in alphabetical order."""
    import unvanish.cures as folder

    found = {}
    for info in pkgutil.iter_modules(folder.__path__):
        if not info.name.startswith("_"):
            name = info.name.replace("_", "-")
            found[name] = Cure(name, importlib.import_module(f"{folder.__name__}.{info.name}"))
    return dict(sorted(found.items()))


def cure(key: str) -> Cure:
    """A cure by its name; KeyError suggests the nearest one."""
    table = cures()
    if key not in table:
        raise KeyError(f"no cure {key!r}{suggest(key, table)}; `unvanish cures` lists them")
    return table[key]


def report(suffix: str, of: str = "diagnosis") -> ModuleType:
    """The report module for a file ending (.txt, .json, .html) and what it reports of."""
    table = REPORTS[of]
    if suffix not in table:
        raise ValueError(f"no {of} report for files ending in {suffix!r}; use one of {', '.join(table)}")
    return importlib.import_module(f"unvanish.reports.{table[suffix]}")


def suggest(wrong: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` with the nearest known word, or an empty text."""
    by_case = {k.casefold(): k for k in known}
    near = difflib.get_close_matches(wrong.casefold(), by_case, n=1, cutoff=0.5)
    return f" (did you mean {by_case[near[0]]!r}?)" if near else ""
