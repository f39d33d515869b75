"""Files written whole or not at all."""

from __future__ import annotations

from pathlib import Path


def write_text(target: Path, text: str, what: str = "report") -> Path:
    """Write a text file whole or not at all; OSError names the file and the reason."""
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"cannot write the {what} {target}: {error.strerror or error}") from error
    return target
