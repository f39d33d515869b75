"""A file that was written: what `unvanish export` ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unvanish.reports.documents._head import begin
from unvanish.reports.parts.shape import COUNT, STRING, describe_document

NAME = "unvanish.file/1"
SCHEMA = describe_document("A file written by unvanish", NAME, {}, path=STRING, format=STRING, bytes=COUNT)


def build(path: Path, form: str) -> dict[str, Any]:
    """The file, its format and its size."""
    return {**begin(NAME), "path": str(path), "format": form, "bytes": path.stat().st_size}
