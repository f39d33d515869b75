"""The folder of a watched training, as `show` and `compare` take it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unvanish.cli.errors import CallError

if TYPE_CHECKING:
    from unvanish.store import Run


def read_run(folder: Path) -> Run:
    """The run of a folder; CallError if it holds none."""
    from unvanish.store import StoreError, open_run

    try:
        return open_run(folder)
    except StoreError as error:
        raise CallError(f"RUN {error}") from error
