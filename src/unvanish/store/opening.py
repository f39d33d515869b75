"""Opening a run's file to read it, wherever it lies: beside its log, alone, or on a read-only volume.

Notable:
- A reader of a file with a write-ahead log makes files beside it, which a read-only volume does not allow. A
  file without a log is opened as one that does not change; one with a log is copied aside with it.
- A writer that was killed may leave a change half made, which only a writer can take back: in the copy.
- A path may hold any character: it is quoted for SQLite's URI.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

LOGGED = 2  # byte 18 of the header: the file is written by way of a log
BESIDE = ("-wal", "-journal")  # what a writer keeps beside the file
TIMEOUT = 10  # seconds to wait for a writer


@contextmanager
def open_to_read(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads; sqlite3.Error or OSError if there is no readable file."""
    beside = [place for end in BESIDE if (place := file.with_name(file.name + end)).is_file()]
    waits = [place for place in beside if place.stat().st_size > 0]
    if _is_logged(file) and not waits:
        with closing(_connect(file, "immutable=1")) as reader:
            yield reader
        return
    try:
        found = _connect(file, "mode=ro")
    except sqlite3.OperationalError:
        if not waits:
            raise
        with tempfile.TemporaryDirectory(prefix="unvanish-") as aside:
            for one in (file, *waits):
                shutil.copyfile(one, Path(aside) / one.name)
            with closing(_connect(Path(aside) / file.name, "mode=rw")) as reader:
                yield reader
        return
    with closing(found) as reader:
        yield reader


def _connect(file: Path, how: str) -> sqlite3.Connection:
    """A connection that has read the header; sqlite3.Error if it cannot."""
    reader = sqlite3.connect(f"file:{quote(str(file.absolute()))}?{how}", uri=True, timeout=TIMEOUT)
    try:
        reader.execute("PRAGMA schema_version").fetchone()
        reader.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error:
        reader.close()
        raise
    return reader


def _is_logged(file: Path) -> bool:
    with file.open("rb") as start:
        header = start.read(20)
    return len(header) == 20 and header[18] == LOGGED
