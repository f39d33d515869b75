"""A run's file may come from anybody: only plain tables are read, for a limited time, with limited values.

Notable:
- A view, a trigger, a virtual table or a computed column is SQL of somebody else's: such a file is refused.
- `trusted_schema` is off and the connection only reads, so what slips through has no functions and no files.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from functools import cache

from unvanish.store.schema import TABLES, VERSION

SECONDS = 60.0  # of reading, by one call
LONGEST = 256_000_000  # bytes of a value
TURNS = 20_000  # instructions of SQLite between two looks at the clock
COMPUTED = " computed"
Columns = list[tuple[str, str, int]]  # name, type, place in the primary key


def guard(reader: sqlite3.Connection, seconds: float = SECONDS) -> None:
    """Limit a connection, and look at its tables; sqlite3.Error if they are not those of a run."""
    end = time.monotonic() + seconds
    reader.set_progress_handler(lambda: int(time.monotonic() > end), TURNS)
    reader.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    reader.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    for pragma in ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", "mmap_size=0"):
        reader.execute(f"PRAGMA {pragma}")
    newer = int(reader.execute("PRAGMA user_version").fetchone()[0]) > VERSION  # which `open_run` refuses
    for kind, name, text in reader.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        if fault := _find_fault(reader, kind, name, text, newer):
            raise sqlite3.DatabaseError(f"it holds {fault}, which no run has")


def _find_fault(reader: sqlite3.Connection, kind: object, name: object, text: object, newer: bool) -> str:
    """What an entry of the schema is, if it is no plain table of a run; else an empty text."""
    if kind == "index" and text is None:  # SQLite's own, of a primary key
        return ""
    if kind != "table" or not isinstance(name, str) or not isinstance(text, str):
        return f"a {kind}" if kind in ("view", "trigger", "index") else "an unknown part"
    if text.lower().split()[:2] == ["create", "virtual"]:
        return "a virtual table"
    known, found = list_columns(), _read_columns(reader, name)
    if any(kind.endswith(COMPUTED) for _, kind, _ in found):
        return "a computed column"
    if newer:
        return ""
    if name not in known:
        return "a table of another name"
    if found != known[name]:
        return f"a table {name!r} with other columns"
    return ""


@cache
def list_columns() -> dict[str, Columns]:
    """The columns of every table of a run."""
    with closing(sqlite3.connect(":memory:")) as blank:
        blank.executescript(TABLES)
        names = [row[0] for row in blank.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: _read_columns(blank, name) for name in names}


def _read_columns(reader: sqlite3.Connection, table: str) -> Columns:
    """The columns of a table; a computed one is marked by its type."""
    rows = reader.execute("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)", (table,)).fetchall()
    return [(name, f"{kind}{COMPUTED}" if hidden else kind, key) for name, kind, key, hidden in rows]
