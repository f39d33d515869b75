"""The rounds: every chosen rule judges one trace; consequences are folded under their causes.

Notable: the rules know no torch, so `check`, `forecast` and `watch` all judge by this file. A finding that
another one explains is never listed as its rival.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from unvanish.clinic import config
from unvanish.core.diagnosis import SEVERITIES, Finding, NotApplicable, Verdict
from unvanish.core.omissions import Omissions, describe_error
from unvanish.core.trace import Trace
from unvanish.rules import Rule, rules

MEASURED = frozenset({"static", "step", "time", "attention", "precision"})  # what one batch can show


@dataclass(frozen=True)
class RuleChoice:
    """The rules to run, by code, and their settings."""

    codes: frozenset[str]
    settings: Mapping[str, Mapping[str, Any]]

    def only(self, codes: Iterable[str]) -> RuleChoice:
        """The choice without all other rules."""
        return replace(self, codes=self.codes & frozenset(codes))


@dataclass(frozen=True)
class Rounds:
    """The verdict of every rule on one trace."""

    findings: tuple[Finding, ...]
    passed: tuple[Verdict, ...]
    not_applicable: tuple[Verdict, ...]
    skipped: tuple[Verdict, ...]


def choose_rules(
    select: Iterable[str] | None,
    ignore: Iterable[str] | None,
    settings: Mapping[str, Mapping[str, Any]] | None,
) -> RuleChoice:
    """The rules that a caller asks for; ConfigError for an unknown code or setting."""
    codes = frozenset(config.select_codes(rules(), select, ignore))
    return RuleChoice(codes, config.check_settings({} if settings is None else settings))


def visit(trace: Trace, choice: RuleChoice, live: bool = False) -> Rounds:
    """Run every chosen rule on a trace; `live`: of a watched training, which other rules can judge."""
    findings: list[Finding] = []
    passed, absent, skipped = [], [], []
    for code, rule in rules().items():
        if code not in choice.codes:
            skipped.append(Verdict(code, rule.name, "not selected"))
        elif live and not rule.live:
            skipped.append(Verdict(code, rule.name, "needs an examination; `check` makes one"))
        elif not live and not rule.needs <= MEASURED:
            skipped.append(Verdict(code, rule.name, "needs a training run; `check` sees one batch"))
        else:
            try:
                found = rule.check(trace, **choice.settings.get(code, {}))
            except NotApplicable as reason:
                absent.append(Verdict(code, rule.name, str(reason)))
                continue
            except Exception as error:  # where something was left out, a rule may miss what it needs
                if Omissions.strict or not trace.facts.get("unmeasured"):
                    raise
                skipped.append(
                    Verdict(code, rule.name, f"something it needs was not measured: {describe_error(error)}")
                )
                continue
            findings += found
            if not found:
                passed.append(Verdict(code, rule.name, _first_sentence(rule)))
    return Rounds(tuple(findings), tuple(passed), tuple(absent), tuple(skipped))


@cache
def _first_sentence(rule: Rule) -> str:
    return " ".join(rule.page.split("\n\n")[0].split())


def rank(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Causes before what they explain, then by severity and weight."""
    return tuple(sorted(findings, key=lambda f: (-SEVERITIES.index(f.severity), -f.weight, f.code)))


def fold(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings, those that another one explains moved under it."""
    table = rules()
    parents: dict[int, int] = {}
    for i, finding in reversed(list(enumerate(findings))):  # the worse of two that explain each other leads
        for j, other in enumerate(findings):
            if (
                i != j
                and (finding.code in table[other.code].explains or table[finding.code].yields)
                and _may_explain(other, finding)
                and not _above(j, i, parents)
            ):
                parents[i] = j
                break

    def build(i: int) -> Finding:
        below = tuple(build(k) for k in range(len(findings)) if parents.get(k) == i)
        return replace(findings[i], consequences=(*findings[i].consequences, *below))

    return tuple(build(i) for i in range(len(findings)) if i not in parents)


def _may_explain(cause: Finding, effect: Finding) -> bool:
    """A note explains no warning."""
    return cause.severity != "note" or effect.severity == "note"


def _above(start: int, wanted: int, parents: Mapping[int, int]) -> bool:
    """Whether `wanted` is `start` or one of its ancestors."""
    place: int | None = start
    while place is not None:
        if place == wanted:
            return True
        place = parents.get(place)
    return False
