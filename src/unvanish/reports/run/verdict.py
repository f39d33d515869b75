"""The verdict on a watched training in a word and a sentence: for the terminal, the page and the notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from unvanish.core.diagnosis import SEVERITIES, Finding, at_least
from unvanish.reports.parts.words import clean, plural

CAUSE = 200  # letters of a cause, at most


@dataclass(frozen=True)
class Spotted:
    """A finding, and the steps at which it was first and last seen; -1 if unknown."""

    finding: Finding
    first: int = -1
    last: int = -1

    @property
    def when(self) -> str:
        """Its steps as a phrase: `step 3 to 5`; empty if unknown."""
        if self.first < 0:
            return ""
        return f"step {self.first}" + (f" to {self.last}" if self.last > self.first else "")


@dataclass(frozen=True)
class RunVerdict:
    """`word`: error, warning, fine or unseen; `sentence`: what a reader must know first.

    `brief`: the same without the cause, for a report that tells it below; empty if there is none.
    """

    word: str
    sentence: str
    brief: str = ""


def write_verdict(spotted: Sequence[Spotted], steps: int, looks: int) -> RunVerdict:
    """The worst finding and how many others there are, or how much was seen without one."""
    if not steps and not spotted:
        return RunVerdict("unseen", "no step was seen, so nothing was judged")
    faults = rank_spotted([s for s in spotted if at_least([s.finding], "warning")])
    if not faults:
        seen = f"{steps:,} steps" if steps != 1 else "1 step"
        closer = plural(looks, "look") if looks else "no look at activations and depth"
        return RunVerdict("fine", f"nothing wrong was seen in {seen} and {closer}")
    worst, tally = faults[0], Counter(s.finding.severity for s in faults)
    count = ", ".join(plural(tally[s], s) for s in reversed(SEVERITIES) if tally[s])
    cause = clean(worst.finding.cause)
    cause = cause if len(cause) <= CAUSE else f"{cause[: CAUSE - 3]}..."
    named = f"{clean(worst.finding.code)} {clean(worst.finding.name)}"
    at = f" at step {worst.first}" if worst.first >= 0 else ""
    brief = f"{count}: {named}{at}"
    return RunVerdict(worst.finding.severity, f"{brief}: {cause}", brief)


def rank_spotted(spotted: Sequence[Spotted]) -> list[Spotted]:
    """The worst first; of the same severity in their order."""
    return sorted(spotted, key=lambda s: -SEVERITIES.index(s.finding.severity))
