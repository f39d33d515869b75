"""One rule a file: its docstring is its page, the keyword arguments of `check` are its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Any

from unvanish.core import registry
from unvanish.core.diagnosis import Case, Finding
from unvanish.core.trace import Trace
from unvanish.rules import _fault, _pages


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
        """Codes of findings that are consequences of this one if both are found."""
        return frozenset(getattr(self.module, "EXPLAINS", ()))

    @property
    def yields(self) -> bool:
        """Whether any other finding is taken for its cause."""
        return bool(getattr(self.module, "YIELDS", False))

    @property
    def live(self) -> bool:
        """Whether it can judge a watched training."""
        return "history" in self.needs or bool(getattr(self.module, "LIVE", False))

    @property
    def at_once(self) -> bool:
        """Whether a live finding is reported at once, not after several looks in a row."""
        return bool(getattr(self.module, "AT_ONCE", False))

    @cached_property
    def page(self) -> str:
        """The rule's documentation: its file's docstring, with the limits of the readings that it uses."""
        return _pages.compose(self.module)

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments of the rule's `check`, with their defaults."""
        return registry.settings(self.module.check)

    def check(self, trace: Trace, **settings: Any) -> list[Finding]:
        """The findings of this rule on a trace; raises NotApplicable with a reason."""
        faults = self.module.check(trace, **settings)
        return [fault.as_finding(self.code, self.name) for fault in faults]

    def case(self, which: str) -> Case:
        """The rule's `sick` or `healthy` model."""
        build: Callable[[], Case] = getattr(self.module, which)
        return build()


@cache
def rules() -> Mapping[str, Rule]:
    """Every rule by code, in the order of the codes."""
    found = {}
    for file, module in registry.modules(__name__, __path__):
        if named := _fault.identify(file):
            found[named[0]] = Rule(*named, module)
    return dict(sorted(found.items()))


def rule(key: str) -> Rule:
    """A rule by its code or its name; KeyError suggests the nearest one."""
    table = rules()
    names = {r.name: r for r in table.values()}
    found = table.get(key.upper()) or names.get(key.lower())
    if found is None:
        near = registry.suggest(key, [*table, *names])
        raise KeyError(f"no rule {key!r}{near}; `unvanish rules` lists them")
    return found
