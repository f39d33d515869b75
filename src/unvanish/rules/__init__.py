"""One rule a file: its docstring is its page, the keyword arguments of `check` are its settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Any

from unvanish.core import registry
from unvanish.core.diagnosis import Case, Finding
from unvanish.core.trace import Trace

RULE_FILE = re.compile(r"^([a-z]{3}\d{3})_([a-z0-9_]+)$")


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
        return registry.page(self.module)

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments of the rule's `check`, with their defaults."""
        return registry.settings(self.module.check)

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
    found = {}
    for file, module in registry.modules(__name__, __path__):
        match = RULE_FILE.match(file)
        if match:
            code = match[1].upper()
            found[code] = Rule(code, match[2].replace("_", "-"), module)
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
