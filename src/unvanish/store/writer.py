"""Writing a run: records go through a bounded queue to a thread that appends them in batches.

Notable:
- The training never waits for the disk: a full queue drops records and counts them; a full disk gives one
  warning, and the thread keeps trying.
- Write-ahead logging: every commit survives a killed process, and readers see it at once.
- When the samples exceed `limit` bytes, every second one of the older half is deleted; samples at findings
  stay, and so does the row of every step.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unvanish.store.reader import StoreError
from unvanish.store.records import Record, Records
from unvanish.store.schema import FILE, TABLES, VERSION

PAUSE = 0.5  # seconds between two commits
QUEUE = 4096  # records that may wait
BYTES = 1_200_000_000  # of samples, before the older half is thinned out


@dataclass
class Losses:
    """Records that were dropped, and why the last write failed."""

    dropped: int = 0
    failure: str = ""


class Store(Records):
    """The writing end of a run folder; `close` writes what waits. StoreError if the folder is unusable.

    `name`: the file in it; each rank of several that train together has its own.
    """

    def __init__(
        self, folder: str | Path, *, name: str = FILE, limit: int = BYTES, pause: float = PAUSE
    ) -> None:
        self.folder, self._name = Path(folder), name
        self.limit, self.pause = limit, pause
        self.losses = Losses()
        self._waiting: queue.Queue[Record] = queue.Queue(QUEUE)
        self._stop = threading.Event()
        self._closed = False
        self._bytes = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self.file)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot write a run into {self.folder}: {error}") from error
        self._thread = threading.Thread(target=self._work, name="unvanish-store", daemon=True)
        self._thread.start()

    @property
    def file(self) -> Path:
        """The file that this process writes."""
        return self.folder / self._name

    def last_step(self) -> int | None:
        """The last step written before this session, None for a new run."""
        with sqlite3.connect(f"file:{self.file}?mode=ro", uri=True) as reader:
            last = reader.execute("SELECT max(step) FROM steps").fetchone()[0]
        reader.close()
        return None if last is None else int(last)

    def flush(self, seconds: float = 10.0) -> bool:
        """Wait until all records so far are written; False if that takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)
        return not self._waiting.unfinished_tasks

    def close(self) -> None:
        """Write what waits and end the thread; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._thread.join(30)

    def put(self, table: str, row: tuple[Any, ...]) -> None:
        """Take one row; a full queue drops it and counts it."""
        if self._closed:
            return
        try:
            self._waiting.put_nowait((table, row))
        except queue.Full:
            self.losses.dropped += 1

    # -- the thread

    def _work(self) -> None:
        unwritten: list[Record] = []
        try:
            while not (self._stop.is_set() and self._waiting.empty()):
                self._stop.wait(self.pause)
                fresh = self._take()
                unwritten = self._write(unwritten + fresh)
                for _ in fresh:
                    self._waiting.task_done()
                if unwritten and self._stop.is_set():
                    break
        finally:
            self._connection.close()

    def _take(self) -> list[Record]:
        records: list[Record] = []
        while len(records) < QUEUE:
            try:
                records.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return records

    def _write(self, records: list[Record]) -> list[Record]:
        """Write records; returns those to try again, at most a queue full."""
        if not records:
            return []
        try:
            with self._connection:
                for table, row in records:
                    marks = ",".join("?" * len(row))
                    self._connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)
                self._thin(sum(len(row[1]) for table, row in records if table == "samples"))
        except sqlite3.Error as error:
            self._fail(str(error))
            self.losses.dropped += max(0, len(records) - QUEUE)
            return records[-QUEUE:]
        self.losses.failure = ""
        return []

    def _fail(self, why: str) -> None:
        if why != self.losses.failure:
            self.losses.failure = why
            warnings.warn(
                f"unvanish: the run in {self.folder} cannot be written at the moment ({why}); the training "
                "goes on, and unvanish keeps trying",
                RuntimeWarning,
                stacklevel=2,
            )

    def _thin(self, fresh: int) -> None:
        self._bytes += fresh
        if self._bytes <= self.limit:
            return
        middle = self._connection.execute(
            "SELECT step FROM samples ORDER BY step LIMIT 1 OFFSET (SELECT count(*) FROM samples) / 2"
        ).fetchone()[0]
        self._connection.execute(
            "DELETE FROM samples WHERE step IN (SELECT step FROM (SELECT step, row_number() OVER"
            " (ORDER BY step) AS place FROM samples WHERE step < ?) WHERE place % 2 = 0)"
            " AND step NOT IN (SELECT step FROM findings UNION SELECT last FROM findings)",
            (middle,),
        )
        size = self._connection.execute("SELECT coalesce(sum(length(cells)), 0) FROM samples").fetchone()[0]
        self._bytes = int(size)


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        connection.close()
        raise sqlite3.DatabaseError(f"it was written by a newer unvanish (version {version} of the tables)")
    connection.executescript(TABLES)
    connection.execute(f"PRAGMA user_version={VERSION}")
    connection.commit()
    return connection
