"""The outcome of a cure in one word and one sentence: the only place that decides them."""

from __future__ import annotations

from dataclasses import dataclass

from unvanish.core.cured import Cured
from unvanish.reports.cure.words import group_steps


@dataclass(frozen=True)
class CureHeadline:
    """A word (healthy, cured, better, not cured) and a sentence that says why."""

    word: str
    sentence: str


def write_headline(cured: Cured) -> CureHeadline:
    """What a reader must know first."""
    if cured.before.healthy and not cured.prescription:
        return CureHeadline("healthy", cured.reason or "nothing is wrong on this batch")
    if cured.success:
        count = len(group_steps(cured))
        remedies = "1 remedy" if count == 1 else f"{count} remedies"
        return CureHeadline("cured", f"{remedies}, proven on a copy")
    return CureHeadline("better" if cured.prescription else "not cured", cured.reason)
