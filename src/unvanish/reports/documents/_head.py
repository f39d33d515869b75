"""The beginning of every document: its schema, and the version of unvanish that wrote it."""

from __future__ import annotations

from typing import Any

from unvanish.core.version import __version__


def begin(name: str) -> dict[str, Any]:
    """The first keys of a document."""
    return {"schema": name, "version": __version__}
