"""A finding as one message, and whether it fails a check: what the formats for programs of others share."""

from __future__ import annotations

from unvanish.core.diagnosis import SEVERITIES, Diagnosis, Finding
from unvanish.reports.parts.words import (
    clean,
    describe_proof,
    describe_remedy,
    list_consequences,
    list_names,
    number,
)

NEVER = "never"
REMEDIES, NUMBERS, SITES = 3, 4, 3  # that a message holds


def write_title(finding: Finding) -> str:
    """`ACT002 contracting-activation`."""
    return f"{clean(finding.code)} {clean(finding.name)}"


def write_message(finding: Finding) -> list[str]:
    """A finding in printable lines: the cause, the place, numbers, how sure it is, what follows, remedies."""
    word, experiment = describe_proof(finding)
    lines = [clean(finding.cause)]
    if finding.sites:
        lines.append(f"at {list_names([site or '(model)' for site in finding.sites], SITES)}")
    for item in finding.evidence[:NUMBERS]:
        limit = f" (limit {clean(item.limit)})" if item.limit else ""
        lines.append(f"{clean(item.name)}: {number(item.value)} {clean(item.unit)}".rstrip() + limit)
    if finding.severity != "note":
        lines.append(f"{word}: {experiment}" if experiment else word)
    if children := list_consequences(finding):
        lines.append(f"follows: {list_names([write_title(child) for child in children])}")
    for remedy in finding.remedies[:REMEDIES]:
        why = f": {clean(remedy.why)}" if remedy.why else ""
        lines.append(f"remedy [{remedy.safety}] {describe_remedy(remedy)}{why}")
    return [*lines, f"help: unvanish explain {clean(finding.code)}"]


def split_line(line: str) -> tuple[str, int] | None:
    """File and number of `net.py:12`; None if it is no such line."""
    file, _, number = line.rpartition(":")
    return (file, int(number)) if file and number.isascii() and number.isdigit() and int(number) else None


def list_failing(diagnosis: Diagnosis, fail_on: str) -> tuple[Finding, ...]:
    """The findings that fail a check at this level: "note", "warning", "error" or "never"."""
    if fail_on == NEVER:
        return ()
    if fail_on not in SEVERITIES:
        raise ValueError(f"fail_on is {fail_on!r}; use one of {', '.join(SEVERITIES)} or {NEVER}")
    return diagnosis.counted(fail_on)
