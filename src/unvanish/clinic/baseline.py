"""The baseline: findings that were there when a project began to check, kept in a file by code and path.

Notable:
- One file serves several models; writing it renews the entries of one and keeps those of the others.
- An old finding that got worse (a warning that became an error) or that reached a new module counts again.
- A finding lists its worst places, and which of many are the worst can change by chance: of a list that is
  cut, half must be old.
- The file is JSON, sorted and one entry a line, so that a review can read its changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unvanish.core.bounds import parse_json
from unvanish.core.diagnosis import SEVERITIES, Diagnosis, Finding, Severity
from unvanish.rules._places import MOST
from unvanish.store.files import read_text, write_text

SCHEMA = "unvanish.baseline/1"
DEEPEST = 6  # of objects within each other

Entries = Mapping[str, Mapping[str, Severity]]  # by code, then by path


class BaselineError(ValueError):
    """A file that is no baseline; the text names the file and what is wrong."""


@dataclass(frozen=True)
class Baseline:
    """The old findings by model, code and path, with the severity that they had."""

    models: Mapping[str, Entries] = field(default_factory=dict)

    def knows(self, subject: str, finding: Finding) -> bool:
        """Whether a finding was there, at least as severe, at its places; of a list that is cut, at half."""
        old = self.models.get(subject, {}).get(finding.code, {})
        rank = SEVERITIES.index
        known = [path in old and rank(finding.severity) <= rank(old[path]) for path in finding.paths]
        return all(known) or (len(finding.sites) >= MOST and 2 * sum(known) >= len(known))

    def list_stale(self, diagnosis: Diagnosis) -> tuple[str, ...]:
        """The entries that are found no longer, "ACT002 at layers.3"; none of a code whose list is cut."""
        old = self.models.get(diagnosis.subject, {})
        found: dict[str, set[str]] = {}
        for finding in diagnosis.walk():
            cut = old.get(finding.code, ()) if len(finding.sites) >= MOST else ()
            found.setdefault(finding.code, set()).update(finding.paths, cut)
        return tuple(
            f"{code} at {path or '(model)'}"
            for code, paths in old.items()
            for path in paths
            if path not in found.get(code, ())
        )

    def renew(self, subject: str, found: Entries) -> Baseline:
        """The baseline with these entries for a model in place of its old ones."""
        others = {name: entries for name, entries in self.models.items() if name != subject}
        return Baseline({**others, subject: found} if found else others)


def collect(diagnosis: Diagnosis, level: Severity) -> Entries:
    """The findings from a level on that no setting ignores."""
    found: dict[str, dict[str, Severity]] = {}
    for finding in diagnosis.at_least(level):
        ignored = finding.excuse is not None and finding.excuse.kind == "ignored"
        if ignored:
            continue
        places = found.setdefault(finding.code, {})
        for path in finding.paths:
            places[path] = max(places.get(path, finding.severity), finding.severity, key=SEVERITIES.index)
    return found


def read(path: Path) -> Baseline:
    """The baseline of a file; BaselineError says what is wrong with it."""
    try:
        document = parse_json(read_text(path), deepest=DEEPEST)
    except (OSError, ValueError, RecursionError) as error:
        raise BaselineError(f"the baseline {path} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        named = document.get("schema") if isinstance(document, dict) else None
        raise BaselineError(f"{path} is no baseline: its schema is {named!r}, not {SCHEMA!r}")
    models = document.get("models")
    if not isinstance(models, dict) or not all(map(_is_right, models.values())):
        raise BaselineError(f"{path} is no baseline: models must hold severities by model, code and path")
    return Baseline(models)


def write(path: Path, baseline: Baseline) -> Path:
    """Write the file whole or not at all; OSError says why not."""
    document = {"schema": SCHEMA, "models": baseline.models}
    return write_text(path, json.dumps(document, indent=2, sort_keys=True) + "\n", "baseline")


def _is_right(entries: Any) -> bool:
    """Whether these are the entries of a model."""
    return isinstance(entries, dict) and all(
        isinstance(paths, dict) and all(severity in SEVERITIES for severity in paths.values())
        for paths in entries.values()
    )
