"""The file of a run as its writer opens it: made whole, checked, taken back to a step, left as one file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from unvanish.store.backlog import Losses
from unvanish.store.schema import TABLES, VERSION

LOG_PAGES = 200  # of 4 kB, before the log is brought into the file


def connect(file: Path) -> sqlite3.Connection:
    """A connection to a run's file, which is made if there is none; sqlite3.Error if it is something else."""
    if not file.exists():
        _make_file(file)
    connection = sqlite3.connect(file, check_same_thread=False, timeout=10)
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > VERSION:
            text = f"it was written by a newer unvanish (version {version} of the tables)"
            raise sqlite3.DatabaseError(text)
        if not version:
            raise sqlite3.DatabaseError(f"its {file.name} is not a run of unvanish")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
    except BaseException:
        connection.close()
        raise
    return connection


def _make_file(file: Path) -> None:
    """A file with its tables, which appears whole, so a copy or a kill at any time leaves a readable one."""
    partial = file.with_name(f"{file.name}.partial")
    for left in (partial, file.with_name(f"{partial.name}-journal")):
        left.unlink(missing_ok=True)
    with closing(sqlite3.connect(partial)) as connection:
        connection.executescript(f"BEGIN;{TABLES}PRAGMA user_version={VERSION};COMMIT;")
    partial.replace(file)


def find_file(file: Path) -> os.stat_result | None:
    """What is at a path now; None without it."""
    try:
        return os.stat(file)
    except OSError:
        return None


def rewind(connection: sqlite3.Connection, start: int | None) -> int:
    """The number of the next step; rows of steps from `start` on are removed."""
    last = connection.execute("SELECT max(step) FROM steps").fetchone()[0]
    if start is None:
        return 0 if last is None else int(last) + 1
    with connection:
        for table in ("steps", "samples", "profiles", "findings"):
            connection.execute(f"DELETE FROM {table} WHERE step >= ?", (start,))
        connection.execute("UPDATE findings SET last = ? WHERE last >= ?", (start - 1, start))
        connection.execute(
            "UPDATE meta SET value = (SELECT json_group_array(json(s.value)) FROM json_each(meta.value) AS s"
            " WHERE json_extract(s.value, '$[0]') < ?) WHERE key = 'sessions'",
            (start,),
        )
    return start


def read_losses(connection: sqlite3.Connection, note: Mapping[str, Any]) -> Losses:
    """What earlier processes lost of this run, by the file or by the note that they left beside it."""
    rows = connection.execute("SELECT key, value FROM meta WHERE key IN ('dropped', 'lost_steps')")
    known = dict(rows.fetchall())
    dropped, steps = (max(_count(known.get(k)), _count(note.get(k))) for k in ("dropped", "lost_steps"))
    return Losses(dropped, steps)


def _count(value: Any) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def shrink_to_one_file(connection: sqlite3.Connection) -> None:
    """Bring the log into the file and do without it; a reader that has it open prevents that, harmlessly."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA busy_timeout=200")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
