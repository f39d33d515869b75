"""Findings that do not count: the project ignores them at these places, or a baseline knows them.

Notable:
- An excused finding stays in the diagnosis with its reason; the headline tells of it, the exit code does not.
- A finding is excused only if all its places are: a new place of an old fault counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from unvanish.clinic.baseline import Baseline
from unvanish.core.diagnosis import Diagnosis, Excuse, Finding


@dataclass(frozen=True)
class Ignore:
    """A code or prefix that is ignored at the modules that a glob names, and in what lies below them.

    `asked`: by the call, which hears if nothing needs it; what a project ignores may serve another model.
    """

    code: str
    path: str
    reason: str
    asked: bool = False

    def covers(self, code: str, path: str) -> bool:
        """Whether it ignores this code at this path; `*` also matches dots."""
        parts = path.split(".")
        above = (".".join(parts[:k]) for k in range(len(parts), 0, -1))
        return code.startswith(self.code) and any(fnmatchcase(place, self.path) for place in above)

    def __str__(self) -> str:
        return f"{self.code}@{self.path}"


def excuse(diagnosis: Diagnosis, ignores: Iterable[Ignore], baseline: Baseline | None = None) -> Diagnosis:
    """The diagnosis whose findings carry their excuse, if they have one."""
    listed = tuple(ignores)

    def judge(finding: Finding) -> Finding:
        reasons = _find_reasons(finding, listed)
        if reasons:
            return replace(finding, excuse=Excuse("ignored", "; ".join(dict.fromkeys(reasons))))
        if baseline is not None and baseline.knows(diagnosis.subject, finding):
            return replace(finding, excuse=Excuse("baseline", "it was there before"))
        return finding

    return replace(diagnosis, findings=tuple(map(judge, diagnosis.findings)))


def list_unused(diagnosis: Diagnosis, ignores: Iterable[Ignore]) -> tuple[Ignore, ...]:
    """Those that no finding, and none that one explains, needs any more."""
    found = [(f.code, path) for f in diagnosis.walk() for path in f.paths]
    return tuple(i for i in ignores if not any(i.covers(code, path) for code, path in found))


def _find_reasons(finding: Finding, ignores: tuple[Ignore, ...]) -> list[str]:
    """The reasons for which every place of a finding is ignored; none if one of them is not."""
    reasons = []
    for path in finding.paths:
        reason = next((i.reason for i in ignores if i.covers(finding.code, path)), None)
        if reason is None:
            return []
        reasons.append(reason)
    return reasons
