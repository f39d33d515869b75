"""The JSON Schema (2020-12) of the JSON report, `unvanish.diagnosis/1`.

Notable:
- Version 1 may gain keys; removing a key or changing its meaning makes version 2.
"""

from __future__ import annotations

from typing import Any

from unvanish.core.diagnosis import SEVERITIES
from unvanish.reports.diagnosis.headline import WORDS

NAME = "unvanish.diagnosis/1"
STRING: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _map(values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """An object that has all of these keys and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


DEFINITIONS: dict[str, Any] = {
    "number": NUMBER,
    "finding": _object(
        code=STRING,
        name=STRING,
        severity={"enum": list(SEVERITIES)},
        cause=STRING,
        direction={"enum": ["vanishing", "exploding", "blocked", "none"]},
        weight=_ref("number"),
        confirmed={"type": ["boolean", "null"]},
        experiment=STRING,
        sites=_list(STRING),
        line=STRING,
        excuse={"anyOf": [_ref("excuse"), {"type": "null"}]},
        evidence=_list(_ref("evidence")),
        remedies=_list(_ref("remedy")),
        consequences=_list(_ref("finding")),
    ),
    "excuse": _object(kind={"enum": ["ignored", "baseline"]}, reason=STRING),
    "evidence": _object(
        name=STRING,
        value={"anyOf": [_ref("number"), STRING]},
        unit=STRING,
        limit=STRING,
        site=STRING,
    ),
    "remedy": _object(
        cure=STRING,
        targets=_list(STRING),
        parameters={"type": "object"},
        safety={"enum": ["exact", "retrain", "advice"]},
        why=STRING,
    ),
    "verdict": _object(code=STRING, name=STRING, reason=STRING),
    "row": _object(
        path=STRING,
        kind=STRING,
        decades=_ref("number"),
        parts=_map(_ref("number")),
        below=_ref("number"),
        children=_list(_ref("row")),
    ),
    "ledger": _object(name=STRING, total=_ref("number"), rows=_list(_ref("row"))),
    "axis": _object(name=STRING, kind={"enum": ["depth", "time"]}, sites=_list({"type": "integer"})),
    "site": _object(
        path=STRING,
        kind=STRING,
        call={"type": "integer"},
        role={"enum": ["node", "parameter", "step", "input", "output"]},
        facts={"type": "object"},
        values=_map(_ref("number")),
    ),
}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A diagnosis by unvanish",
    "$defs": DEFINITIONS,
    **_object(
        schema={"const": NAME},
        version=STRING,
        subject=STRING,
        healthy={"type": "boolean"},
        verdict={"enum": list(WORDS)},
        summary=STRING,
        decades={"anyOf": [_ref("number"), {"type": "null"}]},
        seconds={"type": ["number", "null"]},
        findings=_list(_ref("finding")),
        passed=_list(_ref("verdict")),
        not_applicable=_list(_ref("verdict")),
        skipped=_list(_ref("verdict")),
        facts={"type": "object"},
        ledger={"anyOf": [_ref("ledger"), {"type": "null"}]},
        axes=_list(_ref("axis")),
        steps={"type": "integer"},
        statistics=_map(STRING),
        sites=_list(_ref("site")),
    ),
}
