"""The networks that can be trained by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unvanish.reports.documents._head import begin
from unvanish.reports.parts.shape import COUNT, STRING, describe_document, list_of, object_of, or_null

NAME = "unvanish.zoo/1"
SCHEMA = describe_document(
    "The networks of unvanish",
    NAME,
    {},
    networks=list_of(object_of(name=STRING, task=STRING, description=STRING, parameters=or_null(COUNT))),
)


def build(entries: Iterable[tuple[str, str, str, int | None]]) -> dict[str, Any]:
    """Name, task, description and number of parameters of each, None if nobody asked to count."""
    names = ("name", "task", "description", "parameters")
    return {**begin(NAME), "networks": [dict(zip(names, entry, strict=True)) for entry in entries]}
