"""A diagnosis and its parts: evidence, remedies, findings, verdicts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from unvanish.core.brief import Brief
from unvanish.core.shown import Shown
from unvanish.core.trace import Trace

Severity = Literal["note", "warning", "error"]
Direction = Literal["vanishing", "exploding", "blocked", "none"]
Safety = Literal["exact", "retrain", "advice"]

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
CALL = re.compile(r"\[\d+\]$")  # of a site's label, "act[2]"


@dataclass(frozen=True, repr=False)
class Evidence(Brief):
    """One number behind a finding, with its unit and its limit."""

    name: str
    value: float | str
    unit: str = ""
    limit: str = ""
    site: str = ""


@dataclass(frozen=True, repr=False)
class Remedy(Brief):
    """A change that would help, as data: which cure, where, with what, how safe, and why."""

    cure: str
    targets: tuple[str, ...]
    why: str
    safety: Safety = "retrain"
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Excuse(Brief):
    """Why a finding does not count: the project ignores it there, or it was there before ("baseline")."""

    kind: Literal["ignored", "baseline"]
    reason: str


@dataclass(frozen=True, repr=False)
class Finding(Shown):
    """A named fault: where, the numbers, the cause in one sentence, and the remedies.

    `confirmed`: True if removing the cause on a copy restored the flow, False if it did not, None without an
    experiment. `consequences`: findings that this one explains. `line`: of the user's code, "net.py:12"; ""
    if unknown. `excuse`: why it does not count, None if it does.
    """

    code: str
    name: str
    severity: Severity
    cause: str
    sites: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    direction: Direction = "none"
    weight: float = 0.0
    confirmed: bool | None = None
    experiment: str = ""
    consequences: tuple[Finding, ...] = ()
    line: str = ""
    excuse: Excuse | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The module paths of its sites, without the numbers of calls; ("",) if it names none."""
        paths = (CALL.sub("", site) for site in self.sites)
        return tuple(dict.fromkeys("" if path == "(model)" else path for path in paths)) or ("",)


@dataclass(frozen=True, repr=False)
class Verdict(Brief):
    """A rule without a finding: it passed, did not apply, or was skipped; `reason` says why."""

    code: str
    name: str
    reason: str


def at_least(findings: Iterable[Finding], severity: Severity) -> tuple[Finding, ...]:
    """The findings at or above a severity, in their order."""
    floor = SEVERITIES.index(severity)
    return tuple(f for f in findings if SEVERITIES.index(f.severity) >= floor)


class NotApplicable(Exception):
    """Raised by a rule's `check` if the trace holds nothing for it to judge; the text is the reason."""


@dataclass(frozen=True, repr=False)
class Diagnosis(Shown):
    """The outcome of `check`: findings, worst first; rules that passed, did not apply or were skipped."""

    findings: tuple[Finding, ...]
    trace: Trace
    passed: tuple[Verdict, ...] = ()
    not_applicable: tuple[Verdict, ...] = ()
    skipped: tuple[Verdict, ...] = ()
    subject: str = "model"
    seconds: float = math.nan

    @property
    def healthy(self) -> bool:
        """Whether the model ran, and nothing at or above "warning" was found."""
        return not self.at_least("warning") and not self.trace.facts.get("crash")

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """What could not be measured, where, and why: a sentence each; empty for nearly all models."""
        return tuple(self.trace.facts.get("unmeasured", ()))

    @property
    def not_put_back(self) -> tuple[str, ...]:
        """What the model reaches and the examination may have changed for good; nearly always empty."""
        return tuple(self.trace.facts.get("not_put_back", ()))

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings at or above a severity."""
        return at_least(self.findings, severity)

    def counted(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings at or above a severity that nothing excuses."""
        return tuple(f for f in self.at_least(severity) if f.excuse is None)

    @property
    def excused(self) -> tuple[Finding, ...]:
        """The findings that do not count, each with its excuse."""
        return tuple(f for f in self.findings if f.excuse is not None)

    def codes(self, severity: Severity = "warning") -> tuple[str, ...]:
        """Codes of the findings and of their consequences, worst first, without repeats."""
        return tuple(dict.fromkeys(f.code for f in at_least(self.walk(), severity)))

    def walk(self) -> Iterator[Finding]:
        """Every finding, each followed by its consequences."""

        def down(findings: Sequence[Finding]) -> Iterator[Finding]:
            for finding in findings:
                yield finding
                yield from down(finding.consequences)

        return down(self.findings)


@dataclass(frozen=True, repr=False)
class Case(Brief):
    """A small model, batch and loss on which a rule must fire (`sick`) or stay silent (`healthy`)."""

    model: Any
    batch: Any
    loss: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    story: str = ""
