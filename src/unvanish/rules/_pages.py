"""The page of a rule: its file's docstring, with the limits of the readings that it shares with other rules.

Notable:
- A limit stands in the section "Limits" as one row, `name = value   reason`; `limits` reads the rows, and the
  contract test of the rules compares them with the code.
- A reading is shared through a file whose name begins with an underscore. A rule uses it if it imports it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType

from unvanish.core import registry

SECTION = re.compile(r"\n\nLimits\n\n(.*?)(?=\n\nRemedies\n\n|\Z)", re.DOTALL)
ROW = re.compile(r"^ {4}(\w+) = (\S+) {2,}(\S.*(?:\n {8,}\S.*)*)", re.MULTILINE)


def compose(rule: ModuleType) -> str:
    """The docstring of a rule's file, with the limits of the readings it uses after its own."""
    text = registry.page(rule)
    section = SECTION.search(text)
    if section is None:
        return text
    own = [section[1], *(_limits(reading) for reading in readings(rule))]
    return text[: section.start(1)] + "\n\n".join(filter(None, own)) + text[section.end(1) :]


def readings(rule: ModuleType) -> list[ModuleType]:
    """The readings that a rule uses, directly or through another one."""
    found = {reading.__name__: reading for used in _imported(rule) for reading in (used, *readings(used))}
    return list(found.values())


def _imported(module: ModuleType) -> Iterator[ModuleType]:
    for value in vars(module).values():
        if isinstance(value, ModuleType) and value.__name__.startswith(f"{__package__}._"):
            yield value


def _limits(module: ModuleType) -> str:
    section = SECTION.search(registry.page(module))
    return section[1] if section else ""


def limits(page: str) -> dict[str, tuple[float, str]]:
    """The rows of the section "Limits" of a page: name to value and reason."""
    section = SECTION.search(page)
    rows = ROW.finditer(section[1]) if section else ()
    return {row[1]: (float(row[2]), " ".join(row[3].split())) for row in rows}
