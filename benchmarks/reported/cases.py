"""The register of reports: what was wrong, the codes that would have told, and a builder of both twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Made = tuple[Any, ...]  # model, batch, loss, and options of `check`
CASES: dict[str, Report] = {}


@dataclass(frozen=True)
class Report:
    """A problem that somebody reported in public; `build(True)` is as reported, `build(False)` mended."""

    name: str
    kind: str
    wanted: tuple[str, ...]
    build: Callable[[bool], Made]


def case(wanted: list[str], kind: str) -> Callable[[Callable[[bool], Made]], Callable[[bool], Made]]:
    """Keep the decorated builder under its name; `wanted`: the codes of which one should come first."""

    def keep(build: Callable[[bool], Made]) -> Callable[[bool], Made]:
        CASES[build.__name__] = Report(build.__name__, kind, tuple(wanted), build)
        return build

    return keep
