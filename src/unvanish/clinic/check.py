"""`check`: one batch, the causes by name, worst first, each confirmed by experiment where that is cheap.

Notable:
- The rules read a Trace and know no torch; this file runs them, folds consequences under their causes, and
  has experiments on a copy tell a confirmed cause from an indicated one.
- A finding that another one explains is never listed as its rival.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from unvanish.clinic import config
from unvanish.core.diagnosis import SEVERITIES, Diagnosis, Finding, NotApplicable, Verdict
from unvanish.core.trace import Trace
from unvanish.probes import CheckError, record
from unvanish.rules import Rule, rules

MEASURED = frozenset({"static", "step", "time", "attention", "precision"})


@dataclass(frozen=True)
class Rounds:
    """What every rule said about one trace."""

    findings: tuple[Finding, ...]
    passed: tuple[Verdict, ...]
    not_applicable: tuple[Verdict, ...]
    skipped: tuple[Verdict, ...]


def check(
    model: Any,
    batch: Any,
    loss: Callable[..., Any] | None = None,
    *,
    optimizer: Any = None,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    confirm: bool = True,
    theory: bool = True,
    name: str | None = None,
) -> Diagnosis:
    """Measure one batch and name where the gradient is lost; the model is bit-identical afterwards.

    `batch`: what a loader yields, a tensor, an (x, y) pair, or a dict passed as keywords. `loss`: called as
    loss(output, y) or loss(output); without one the output's own `.loss` serves, else a random cotangent.
    `select`, `ignore`: rule codes or prefixes ("ACT", "INI001"); `settings`: {"ACT001": {"limit": 0.6}}.
    `confirm`: try on a copy whether removing the cause restores the flow. `theory`: show what was to be
    expected beside what was measured. CheckError for a call that does not fit together, `probes.ModelCrash`
    where the model raises.
    """
    started = time.perf_counter()
    chosen = frozenset(config.selected(rules(), select, ignore))
    checked = config.checked_settings(settings or {})
    if optimizer is not None and not isinstance(getattr(optimizer, "param_groups", None), list):
        raise CheckError(
            f"optimizer is a {type(optimizer).__name__}, not a torch optimizer; pass the optimizer itself"
        )
    trace = record(model, batch, loss, optimizer=optimizer, theory=theory)
    rounds = visit(trace, chosen, checked)
    findings = folded(ranked(rounds.findings))
    if confirm and findings:
        from unvanish.probes.experiments import confirm_cause

        findings = confirm_cause(findings, trace, model, batch, loss)
    subject = name or type(model).__name__
    return Diagnosis(
        findings,
        trace,
        rounds.passed,
        rounds.not_applicable,
        rounds.skipped,
        subject,
        time.perf_counter() - started,
    )


def assert_healthy(
    model: Any, batch: Any, loss: Any = None, *, fail_on: str = "warning", **options: Any
) -> Diagnosis:
    """The diagnosis of a healthy model; AssertionError with the report from `fail_on` upwards.

    `options` are those of `check`. ValueError names an unknown level.
    """
    if fail_on not in SEVERITIES:
        raise ValueError(f"fail_on is {fail_on!r}; use one of {', '.join(SEVERITIES)}")
    diagnosis = check(model, batch, loss, **options)
    if diagnosis.at_least(fail_on):
        raise AssertionError(f"\n{diagnosis}")
    return diagnosis


def visit(
    trace: Trace, chosen: Iterable[str], settings: Mapping[str, Mapping[str, Any]], live: bool = False
) -> Rounds:
    """Run every chosen rule on a trace; `live`: of a watched training, which other rules can judge."""
    findings: list[Finding] = []
    passed, absent, skipped = [], [], []
    for code, rule in rules().items():
        if code not in chosen:
            skipped.append(Verdict(code, rule.name, "not selected"))
        elif live and not rule.live:
            skipped.append(Verdict(code, rule.name, "needs an examination; `check` makes one"))
        elif not live and not rule.needs <= MEASURED:
            skipped.append(Verdict(code, rule.name, "needs a training run; `check` sees one batch"))
        else:
            try:
                found = rule.check(trace, **settings.get(code, {}))
            except NotApplicable as reason:
                absent.append(Verdict(code, rule.name, str(reason)))
                continue
            findings += found
            if not found:
                passed.append(Verdict(code, rule.name, _first_sentence(rule)))
    return Rounds(tuple(findings), tuple(passed), tuple(absent), tuple(skipped))


@cache
def _first_sentence(rule: Rule) -> str:
    return " ".join(rule.page.split("\n\n")[0].split())


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Causes before what they explain, then by severity and weight."""
    return tuple(sorted(findings, key=lambda f: (-SEVERITIES.index(f.severity), -f.weight, f.code)))


def folded(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Findings that another one explains, moved under it."""
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

    def built(i: int) -> Finding:
        below = tuple(built(k) for k in range(len(findings)) if parents.get(k) == i)
        return replace(findings[i], consequences=(*findings[i].consequences, *below))

    return tuple(built(i) for i in range(len(findings)) if i not in parents)


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
