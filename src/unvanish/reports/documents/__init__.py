"""Documents: what every verb says to programs, as strict JSON under a versioned schema, one file for each.

Notable:
- A file holds `NAME` ("unvanish.run/1"), `SCHEMA` (JSON Schema 2020-12) and `build`, which gives dicts,
  lists, texts, finite numbers and null. JSON has no NaN and no infinity: they are "nan", "inf" and "-inf".
- A version may gain keys; removing one, or changing its meaning, makes the next version.
- The text is ASCII, so no name can break an encoding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from unvanish.core import registry

__all__ = ["find_documents", "write_document"]


def find_documents() -> dict[str, ModuleType]:
    """Every document by the name of its file: `diagnosis`, `run` ..."""
    return dict(registry.modules(__name__, __path__))


def write_document(document: Mapping[str, Any], indent: int | None = 2) -> str:
    """A document as text that ends with a line's end."""
    return json.dumps(document, indent=indent, allow_nan=False) + "\n"
