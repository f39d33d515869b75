"""All rules, cures or symptoms: what `unvanish rules`, `cures` and `explain` without a name list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unvanish.reports.documents._head import begin
from unvanish.reports.documents.page import KINDS, SHAPE, describe_entry
from unvanish.reports.parts.shape import describe_document, list_of, one_of

NAME = "unvanish.index/1"
SCHEMA = describe_document(
    "The rules, the cures or the symptoms of unvanish", NAME, {}, kind=one_of(KINDS), entries=list_of(SHAPE)
)


def build(kind: str, entries: Iterable[tuple[Any, str]]) -> dict[str, Any]:
    """Rules, cures or symptoms, each with the first sentence of its page, or its title."""
    return {**begin(NAME), "kind": kind, "entries": [describe_entry(kind, e, text) for e, text in entries]}
