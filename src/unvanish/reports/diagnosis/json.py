"""The report for programs: strict JSON under a versioned schema, `unvanish.diagnosis/1`.

Notable:
- JSON has no NaN and no infinity: such numbers are the strings "nan", "inf" and "-inf", which `float()` in
  Python reads back. A statistic that was not measured is left out; `seconds` and `decades` may be null.
- The text is ASCII (other characters are escaped), so no name can break an encoding.
- `sites` holds the statistics of the last recorded step; indices in `axes` point into it.
- `SCHEMA` describes the document as JSON Schema (2020-12).
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Diagnosis, Finding, Remedy
from unvanish.core.ledger import Ledger, Row
from unvanish.core.plain import plain
from unvanish.core.trace import STATISTICS, Trace
from unvanish.core.version import __version__
from unvanish.reports.diagnosis.headline import find_ledger, write_headline
from unvanish.reports.diagnosis.schema import NAME, SCHEMA

__all__ = ["NAME", "SCHEMA", "build_document", "build_finding", "build_remedy", "render"]


def render(diagnosis: Diagnosis) -> str:
    """The diagnosis as indented strict JSON text; see the module's notes for NaN and infinity."""
    return json.dumps(build_document(diagnosis), indent=2, allow_nan=False) + "\n"


def build_document(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as dicts, lists, texts and finite numbers, as `SCHEMA` describes it."""
    book, trace = find_ledger(diagnosis), diagnosis.trace
    top = write_headline(diagnosis, book)
    return {
        "schema": NAME,
        "version": __version__,
        "subject": diagnosis.subject,
        "healthy": diagnosis.healthy,
        "verdict": top.word,
        "summary": top.sentence,
        "decades": None if top.total is None else plain(top.total),
        "seconds": diagnosis.seconds if math.isfinite(diagnosis.seconds) else None,
        "findings": [build_finding(f) for f in diagnosis.findings],
        **{key: plain(getattr(diagnosis, key)) for key in ("passed", "not_applicable", "skipped")},
        "facts": plain(trace.facts),
        "ledger": None if book is None else _ledger(book),
        "axes": plain(trace.axes),
        "steps": int(trace.values.shape[0]),
        "statistics": {name: STATISTICS.get(name, "") for name in trace.statistics},
        "sites": _sites(trace),
    }


def build_finding(finding: Finding) -> dict[str, Any]:
    """A finding with its consequences."""
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity,
        "cause": finding.cause,
        "direction": finding.direction,
        "weight": plain(finding.weight),
        "confirmed": finding.confirmed,
        "experiment": finding.experiment,
        "sites": list(finding.sites),
        "line": finding.line,
        "excuse": plain(finding.excuse),
        "evidence": plain(finding.evidence),
        "remedies": [build_remedy(r) for r in finding.remedies],
        "consequences": [build_finding(f) for f in finding.consequences],
    }


def build_remedy(remedy: Remedy) -> dict[str, Any]:
    """A remedy."""
    return {
        "cure": remedy.cure,
        "targets": list(remedy.targets),
        "parameters": plain(remedy.parameters),
        "safety": remedy.safety,
        "why": remedy.why,
    }


def _ledger(book: Ledger) -> dict[str, Any]:
    return {"name": book.name, "total": plain(book.total), "rows": [_row(row) for row in book.rows]}


def _row(row: Row) -> dict[str, Any]:
    return {
        "path": row.path,
        "kind": row.kind,
        "decades": plain(row.decades),
        "parts": plain(row.parts),
        "below": plain(row.below),
        "children": [_row(child) for child in row.children],
    }


def _sites(trace: Trace) -> list[dict[str, Any]]:
    last = trace.values[-1] if trace.values.shape[0] else np.full(trace.values.shape[1:], np.nan)
    known = [zip(trace.statistics, map(float, row), strict=True) for row in last]
    return [
        {
            "path": site.path,
            "kind": site.kind,
            "call": int(site.call),
            "role": site.role,
            "facts": plain(site.facts),
            "values": {name: plain(value) for name, value in row if not math.isnan(value)},
        }
        for site, row in zip(trace.sites, known, strict=True)
    ]
