"""Parts of JSON Schemas (2020-12): what the schemas of all documents are made of.

Notable: an object of ours has all of its keys and may have more, as a version may gain keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Shape = dict[str, Any]
STRING: Shape = {"type": "string"}
FLAG: Shape = {"type": "boolean"}
COUNT: Shape = {"type": "integer"}
ANYTHING: Shape = {"type": "object"}
NUMBER: Shape = {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]}
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def list_of(items: Shape) -> Shape:
    """A list of any length."""
    return {"type": "array", "items": items}


def map_of(values: Shape) -> Shape:
    """An object with any keys."""
    return {"type": "object", "additionalProperties": values}


def object_of(**properties: Shape) -> Shape:
    """An object that has all of these keys and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def one_of(words: Iterable[str]) -> Shape:
    """One of these words."""
    return {"enum": list(words)}


def or_null(shape: Shape) -> Shape:
    """What this describes, or null."""
    return {"anyOf": [shape, {"type": "null"}]}


def refer(name: str) -> Shape:
    """A reference to one of the schema's definitions."""
    return {"$ref": f"#/$defs/{name}"}


def describe_document(title: str, name: str, definitions: dict[str, Shape], /, **properties: Shape) -> Shape:
    """The schema of a document: `schema` and `version` (of unvanish), then what it says."""
    return {
        "$schema": DRAFT,
        "title": title,
        "$defs": definitions,
        **object_of(schema={"const": name}, version=STRING, **properties),
    }
