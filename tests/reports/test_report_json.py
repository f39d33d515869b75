"""The JSON report: strict, complete, and as its schema says."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Diagnosis
from unvanish.core.plain import plain
from unvanish.core.version import __version__
from unvanish.reports.diagnosis.json import SCHEMA, build_document, render

Build = Callable[[str], Diagnosis]
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
}


def load(text: str) -> Any:
    """Parse strictly: NaN and Infinity are refused."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def is_a(value: Any, name: str) -> bool:
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, TYPES[name]) and not (name == "number" and isinstance(value, bool))


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """A validator for the keywords that SCHEMA uses."""
    if "$ref" in schema:
        return fits(value, SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]])
    names = schema.get("type", [])
    checks = [
        not names or any(is_a(value, n) for n in ([names] if isinstance(names, str) else names)),
        "const" not in schema or value == schema["const"],
        "enum" not in schema or value in schema["enum"],
        "anyOf" not in schema or any(fits(value, s) for s in schema["anyOf"]),
    ]
    if isinstance(value, dict):
        known = schema.get("properties", {})
        extra = schema.get("additionalProperties", {})
        checks += [key in value for key in schema.get("required", [])]
        checks += [fits(item, known.get(key, extra)) for key, item in value.items()]
    if isinstance(value, list):
        checks += [fits(item, schema.get("items", {})) for item in value]
    return all(checks)


def test_every_report_fits_the_schema(diagnosis: Diagnosis) -> None:
    parsed = load(render(diagnosis))
    assert fits(parsed, SCHEMA)
    assert parsed["schema"] == "unvanish.diagnosis/1" and parsed["version"] == __version__


@pytest.mark.skipif(importlib.util.find_spec("jsonschema") is None, reason="jsonschema is not installed")
def test_jsonschema_agrees(diagnosis: Diagnosis) -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(load(render(diagnosis)), SCHEMA)


def test_the_schema_refuses(example: Build) -> None:
    good = build_document(example("sick"))
    assert fits(good, SCHEMA)
    for broken in ({**good, "schema": "other/1"}, {**good, "decades": "many"}, {**good, "findings": [{}]}):
        assert not fits(broken, SCHEMA)


def test_findings_carry_everything(example: Build) -> None:
    first = build_document(example("sick"))["findings"][0]
    assert [f["code"] for f in first["consequences"]] == ["DEP001", "INI001"]
    assert first["consequences"][0]["evidence"][0]["limit"] == "< 0.99"
    assert first["remedies"][1]["parameters"] == {"to": "Tanh", "gain": 1.4674}
    assert len(first["sites"]) == 30 and first["confirmed"] is True


def test_numbers_that_json_cannot_hold_are_texts(example: Build) -> None:
    parsed = load(render(example("broken")))
    values = [e["value"] for e in parsed["findings"][0]["evidence"]]
    assert values == [0.12, "inf", "nan", "contains zeros"]
    assert parsed["seconds"] is None and parsed["decades"] == "nan"
    assert float(parsed["ledger"]["rows"][2]["decades"]) == -math.inf


def test_sites_leave_out_what_was_not_measured(example: Build) -> None:
    parsed = load(render(example("recurrent")))
    step = next(site for site in parsed["sites"] if site["role"] == "step")
    assert set(step["values"]) == {"state_log", "carry_log"}
    assert step["facts"] == {"step": 0, "of": "rnn"}
    assert set(step["values"]) <= set(parsed["statistics"])


def test_the_ledger_is_a_tree_that_adds_up(example: Build) -> None:
    book = build_document(example("blocks"))["ledger"]
    assert sum(row["decades"] for row in book["rows"]) == pytest.approx(book["total"])
    inner = book["rows"][2]["children"]
    assert [row["path"] for row in inner] == ["blocks.2.attention", "blocks.2.mlp"]


def test_names_survive(example: Build) -> None:
    found = example("weird")
    parsed = load(render(found))
    assert [f["name"] for f in parsed["findings"]] == [f.name for f in found.findings]
    assert render(found).isascii()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32("inf"), "inf"),
        (np.array([1.0, math.nan]), [1.0, "nan"]),
        (np.int64(3), 3),
        (np.bool_(True), True),
        ({1: (2, {3})}, {"1": [2, [3]]}),
        (Path("a"), "a"),
        (1e400, "inf"),
        (None, None),
    ],
)
def test_plain(value: object, expected: object) -> None:
    assert plain(value) == expected


def test_plain_ends_on_a_cycle() -> None:
    loop: list[object] = []
    loop.append(loop)
    json.dumps(plain(loop), allow_nan=False)
