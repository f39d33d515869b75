"""The JSON Schema (2020-12) of the JSON report, `unvanish.diagnosis/1`.

Notable:
- Version 1 may gain keys; removing a key or changing its meaning makes version 2.
"""

from __future__ import annotations

from typing import Any

from unvanish.core.diagnosis import SEVERITIES
from unvanish.reports.diagnosis.headline import WORDS
from unvanish.reports.parts.shape import (
    NUMBER,
    STRING,
    describe_document,
    list_of,
    map_of,
    object_of,
    refer,
)

NAME = "unvanish.diagnosis/1"
DEFINITIONS: dict[str, Any] = {
    "number": NUMBER,
    "finding": object_of(
        code=STRING,
        name=STRING,
        severity={"enum": list(SEVERITIES)},
        cause=STRING,
        direction={"enum": ["vanishing", "exploding", "blocked", "none"]},
        weight=refer("number"),
        confirmed={"type": ["boolean", "null"]},
        experiment=STRING,
        sites=list_of(STRING),
        line=STRING,
        excuse={"anyOf": [refer("excuse"), {"type": "null"}]},
        evidence=list_of(refer("evidence")),
        remedies=list_of(refer("remedy")),
        consequences=list_of(refer("finding")),
    ),
    "excuse": object_of(kind={"enum": ["ignored", "baseline"]}, reason=STRING),
    "evidence": object_of(
        name=STRING,
        value={"anyOf": [refer("number"), STRING]},
        unit=STRING,
        limit=STRING,
        site=STRING,
    ),
    "remedy": object_of(
        cure=STRING,
        targets=list_of(STRING),
        parameters={"type": "object"},
        safety={"enum": ["exact", "retrain", "advice"]},
        why=STRING,
    ),
    "verdict": object_of(code=STRING, name=STRING, reason=STRING),
    "row": object_of(
        path=STRING,
        kind=STRING,
        decades=refer("number"),
        parts=map_of(refer("number")),
        below=refer("number"),
        children=list_of(refer("row")),
    ),
    "ledger": object_of(name=STRING, total=refer("number"), rows=list_of(refer("row"))),
    "axis": object_of(name=STRING, kind={"enum": ["depth", "time"]}, sites=list_of({"type": "integer"})),
    "site": object_of(
        path=STRING,
        kind=STRING,
        call={"type": "integer"},
        role={"enum": ["node", "parameter", "step", "input", "output"]},
        facts={"type": "object"},
        values=map_of(refer("number")),
    ),
}
FINDING = {key: DEFINITIONS[key] for key in ("number", "finding", "excuse", "evidence", "remedy")}  # of one

SCHEMA: dict[str, Any] = describe_document(
    "A diagnosis by unvanish",
    NAME,
    DEFINITIONS,
    subject=STRING,
    healthy={"type": "boolean"},
    verdict={"enum": list(WORDS)},
    summary=STRING,
    decades={"anyOf": [refer("number"), {"type": "null"}]},
    seconds={"type": ["number", "null"]},
    findings=list_of(refer("finding")),
    passed=list_of(refer("verdict")),
    not_applicable=list_of(refer("verdict")),
    skipped=list_of(refer("verdict")),
    facts={"type": "object"},
    ledger={"anyOf": [refer("ledger"), {"type": "null"}]},
    axes=list_of(refer("axis")),
    steps={"type": "integer"},
    statistics=map_of(STRING),
    sites=list_of(refer("site")),
)
