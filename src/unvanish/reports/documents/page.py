"""The page of a rule, a cure or a symptom: what `unvanish explain` shows."""

from __future__ import annotations

from typing import Any

from unvanish.core.plain import plain
from unvanish.reports.documents._head import begin
from unvanish.reports.parts.shape import (
    ANYTHING,
    STRING,
    describe_document,
    list_of,
    object_of,
    one_of,
    or_null,
)  # fmt: skip

NAME = "unvanish.page/1"
KINDS = ("rule", "cure", "symptom")
ENTRY = {
    "kind": one_of(KINDS),
    "code": or_null(STRING),
    "name": STRING,
    "summary": STRING,
    "settings": ANYTHING,
    "needs": list_of(STRING),
    "explains": list_of(STRING),
    "safety": or_null(STRING),
}
SHAPE = object_of(**ENTRY)
SCHEMA = describe_document(
    "The page of a rule, a cure or a symptom of unvanish", NAME, {}, **ENTRY, page=STRING
)


def describe_entry(kind: str, entry: Any, summary: str) -> dict[str, Any]:
    """A rule, a cure or a symptom in a table: a rule has a code, a cure a safety; a symptom names codes."""
    return {
        "kind": kind,
        "code": getattr(entry, "code", None) if kind == "rule" else None,
        "name": entry.name,
        "summary": summary,
        "settings": {} if kind == "symptom" else plain(dict(entry.settings)),
        "needs": sorted(entry.needs) if kind == "rule" else [],
        "explains": sorted(entry.explains) if kind == "rule" else list(getattr(entry, "codes", ())),
        "safety": entry.safety if kind == "cure" else None,
    }


def build(kind: str, entry: Any, summary: str) -> dict[str, Any]:
    """The page, in Markdown, under what the table of all says of it."""
    return {**begin(NAME), **describe_entry(kind, entry, summary), "page": entry.page}
