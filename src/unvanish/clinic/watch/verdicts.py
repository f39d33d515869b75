"""Judging a watched training: a finding is reported after three looks in a row, and only once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from time import perf_counter

from unvanish.clinic.rounds import RuleChoice, fold, rank, visit
from unvanish.core.diagnosis import Finding
from unvanish.core.trace import Trace
from unvanish.rules import rules
from unvanish.store.records import Records

PATIENCE = 3  # looks in a row before a finding is reported
FIRST, NEAR, EARLY = 4, 8, 100  # rows are judged after so many steps, then each so many, up to so many;
OFTEN, SELDOM = 32, 256  # then each 32, later each 256, or sooner if the share allows,
CREDIT, SHARE = 0.3, 0.001  # while it took less than so many seconds, and this share of the run
LATER_RUN = 1000  # times the first step: offset of the keys of a continued run, which keeps the earlier ones


@dataclass(frozen=True)
class Reported:
    """A finding, and the first and last step at which it was found."""

    first: int
    last: int
    finding: Finding


@dataclass
class Verdicts:
    """The chosen rules, and what they have found."""

    choice: RuleChoice
    first_step: int
    findings: list[Finding] = field(default_factory=list)  # consequences under their causes
    reported: dict[str, Reported] = field(default_factory=dict)  # by code
    seconds: float = 0.0  # that judging rows took
    next: int = FIRST  # steps made when their rows are judged next
    times: int = 0  # that rows were judged
    jumped: int = 0  # steps made when a number jumped last
    streaks: dict[tuple[str, bool], int] = field(default_factory=dict)  # looks in a row, see `list_keys`

    def judge(self, trace: Trace, step: int, store: Records | None) -> list[Finding]:
        """What the rules that know histories find and had not reported before."""
        rounds = visit(trace, self.choice, live=True)
        found = {f.code: f for f in reversed(rank(rounds.findings))}
        self.streaks = {key: self.streaks.get(key, 0) + 1 for f in found.values() for key in list_keys(f)}
        fresh = []
        for code, finding in found.items():
            patience = 1 if rules()[code].at_once else PATIENCE
            lasting = self.streaks[list_keys(finding)[-1]] >= patience
            if lasting and self.report(finding, step, store):
                fresh.append(finding)
        return fresh

    def is_due(self, made: int, elapsed: float) -> bool:
        """Whether the rows of the steps are to be judged after so many steps, and seconds."""
        if made < self.next:
            return False
        self.next = made + self._choose_gap(made, elapsed)
        return self.seconds < CREDIT + SHARE * elapsed

    def _choose_gap(self, made: int, elapsed: float) -> int:
        """Steps to the next judging: few at first and after a jump, or if steps take long beside it."""
        since = made - self.jumped
        if made < EARLY or FIRST <= since < OFTEN:
            return NEAR if made < EARLY else since
        each = self.seconds / max(1, self.times)
        afforded = each * made / (SHARE * elapsed) if elapsed > 0 else SELDOM
        return int(max(NEAR, min(afforded, SELDOM, max(OFTEN, made // 8))))

    def hasten(self, made: int) -> bool:
        """A number of the step has jumped: judge its rows soon, as at the start of a run; not too often."""
        if made - self.jumped < EARLY:
            return False
        self.jumped = made
        self.next = min(self.next, made + FIRST)
        return True

    def judge_steps(self, trace: Trace, step: int, store: Records | None) -> list[Finding]:
        """What the rules find that need no look and no patience."""
        began = perf_counter()
        found = visit(trace, self.choice.only(_find_prompt()), live=True).findings
        fresh = [f for f in rank(found) if self.report(f, step, store)]
        self.seconds += perf_counter() - began
        self.times += 1
        return fresh

    def judge_at_once(self, code: str, trace: Trace, step: int, store: Records | None) -> list[Finding]:
        """What one rule finds, reported without waiting."""
        found = visit(trace, self.choice.only({code}), live=True).findings
        return [f for f in found if self.report(f, step, store)]

    def report(self, finding: Finding, step: int, store: Records | None) -> bool:
        """Note a finding; whether it is reported for the first time, or has become a warning."""
        before = self.reported.get(finding.code)
        first = step if before is None else before.first
        self.reported[finding.code] = Reported(first, step, finding)
        if store is not None:
            key = list(self.reported).index(finding.code) + LATER_RUN * self.first_step
            store.finding(key, first, step, finding)
        worse = before is not None and before.finding.severity == "note" and finding.severity != "note"
        if before is None or worse:
            self.findings = list(fold(rank(r.finding for r in self.reported.values())))
        return before is None or worse


@cache
def _find_prompt() -> frozenset[str]:
    """The rules that need no look and no patience."""
    return frozenset(code for code, rule in rules().items() if rule.live and rule.at_once)


def list_keys(finding: Finding) -> list[tuple[str, bool]]:
    """What a finding counts for: as one at all, and as a warning; a note of long standing is not one yet."""
    loud = finding.severity != "note"
    return [(finding.code, False), (finding.code, True)] if loud else [(finding.code, False)]
