"""A diagnosis: what `unvanish check` and `unvanish forecast` say, and `diagnosis.save("x.json")` writes."""

from __future__ import annotations

from unvanish.reports.diagnosis.json import NAME, SCHEMA
from unvanish.reports.diagnosis.json import build_document as build

__all__ = ["NAME", "SCHEMA", "build"]
