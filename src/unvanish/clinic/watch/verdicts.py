"""Judging a watched training: three looks in a row before a finding is said, and then it is said once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unvanish.clinic.check import folded, ranked, visit
from unvanish.core.diagnosis import Finding
from unvanish.core.trace import Trace
from unvanish.rules import rules
from unvanish.store import Store

PATIENCE = 3  # looks in a row before a finding is said


@dataclass
class Verdicts:
    """The chosen rules, and what they have said."""

    chosen: frozenset[str]
    settings: Mapping[str, Mapping[str, Any]]
    first_step: int
    findings: list[Finding] = field(default_factory=list)
    _streaks: dict[tuple[str, bool], int] = field(default_factory=dict)
    _said: dict[str, tuple[int, int, Finding]] = field(default_factory=dict)

    def judge(self, trace: Trace, step: int, store: Store | None) -> list[Finding]:
        """What the rules that know histories find and had not said before."""
        rounds = visit(trace, self.chosen, self.settings, live=True)
        found = {f.code: f for f in reversed(ranked(rounds.findings))}
        self._streaks = {key: self._streaks.get(key, 0) + 1 for f in found.values() for key in _keys(f)}
        fresh = []
        for code, finding in found.items():
            patience = 1 if rules()[code].at_once else PATIENCE
            lasting = self._streaks[_keys(finding)[-1]] >= patience
            if lasting and self.say(finding, step, store):
                fresh.append(finding)
        return fresh

    def at_once(self, code: str, trace: Trace, step: int, store: Store | None) -> list[Finding]:
        """What one rule finds, said without waiting."""
        found = visit(trace, self.chosen & {code}, self.settings, live=True).findings
        return [f for f in found if self.say(f, step, store)]

    def say(self, finding: Finding, step: int, store: Store | None) -> bool:
        """Note a finding; whether it is said for the first time, or has become a warning."""
        before = self._said.get(finding.code)
        first = step if before is None else before[0]
        self._said[finding.code] = (first, step, finding)
        if store is not None:
            key = list(self._said).index(finding.code) + 1000 * self.first_step
            store.finding(key, first, step, finding)
        worse = before is not None and before[2].severity == "note" and finding.severity != "note"
        if before is None or worse:
            self.findings = list(folded(ranked(f for _, _, f in self._said.values())))
        return before is None or worse


def _keys(finding: Finding) -> list[tuple[str, bool]]:
    """What a finding counts for: as one at all, and as a warning; a note of long standing is none yet."""
    loud = finding.severity != "note"
    return [(finding.code, False), (finding.code, True)] if loud else [(finding.code, False)]
