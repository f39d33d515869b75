"""The folder of a watched training, as `show` and `compare` take it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unvanish.cli.errors import CallError

if TYPE_CHECKING:
    from unvanish.store import Run


@contextlib.contextmanager
def reading(*folders: Path) -> Iterator[None]:
    """Turn what cannot be read or shown of these runs into a CallError of one line."""
    from unvanish.core.names import show
    from unvanish.store import StoreError
    from unvanish.store.parts import DAMAGED

    try:
        yield
    except StoreError as error:
        raise CallError(f"RUN {error}") from error
    except DAMAGED as error:
        named = " and ".join(show(folder) for folder in folders)
        raise CallError(f"RUN {named} holds what unvanish does not write: {show(error)[:200]}") from error


def read_run(folder: Path) -> Run:
    """The run of a folder; CallError if it holds none."""
    from unvanish.store import open_run

    with reading(folder):
        return open_run(folder)
