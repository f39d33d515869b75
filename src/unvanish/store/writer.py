"""Writing a run: records go through a bounded backlog to a thread that appends them in batches.

Notable:
- The training never waits for the disk. A full disk, a deleted folder, a detached volume: one warning, and
  the thread keeps trying, and what cannot be written in the end is counted and said (`backlog`).
- Write-ahead logging: every commit survives a killed process, and readers see it at once. A closed run is one
  file, which a read-only volume can hold.
- A fault of ours in the thread is said once, with its place (`fault`); the thread begins again, and if it
  ends for good, all that waits or comes is counted as lost.
- A file has one writer (`lock`), of several ranks each its own; in a forked child the writer is dead.
- When the samples exceed `limit` bytes, every second one of the older half is deleted; samples at findings
  stay, and so does the row of every step.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from unvanish.core.caution import caution, locate
from unvanish.store.backlog import Backlog, Losses
from unvanish.store.layouts import keep_layout
from unvanish.store.lock import FolderLock, read_note
from unvanish.store.opened import note_opening
from unvanish.store.reader import StoreError
from unvanish.store.records import Record, Records
from unvanish.store.run_file import connect, find_file, read_losses, rewind, shrink_to_one_file
from unvanish.store.schema import FILE, LOCK

PAUSE = 0.5  # seconds between two commits
BYTES = 1_200_000_000  # of samples, before the older half is thinned out
LAST_TRIES = 3  # of writing, when the run ends on a disk that fails
CLOSING = 15.0  # seconds that the end of a run waits for the disk
BROKEN = ("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_READONLY")

_stores: weakref.WeakSet[Store] = weakref.WeakSet()
_abandoned: list[sqlite3.Connection] = []  # of a parent process, never to be closed by its child


class Store(Records):
    """The writing end of a run folder; `close` writes what waits. StoreError if the folder is unusable.

    `name`: the file in it; each rank of several that train together has its own. `start`: the number of the
    first step to come; rows that an earlier process wrote from there on go. None: the one after the last.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str = FILE,
        start: int | None = None,
        limit: int = BYTES,
        pause: float = PAUSE,
    ) -> None:
        self.folder = Path(folder)
        self.file = self.folder.absolute() / name  # the program may change its working folder
        self._claim = self.file.with_name(LOCK.format(name))
        self.limit, self.pause = limit, pause
        self.fault = ""  # where and how our own thread failed, in a line
        self._backlog = Backlog()
        self._stop, self._wake = threading.Event(), threading.Event()
        self._closed = self._ended = False  # takes no rows; has let go of all
        self._served = False  # the thread has done its work to the end
        self._bytes = 0  # of samples
        self._written = Losses()  # by this process into the present file, which somebody may delete
        self._told: set[str] = set()
        self._connection: sqlite3.Connection | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            note = read_note(self._claim)[0]
            self._lock = FolderLock(self._claim)
        except (OSError, ValueError) as error:
            raise _refuse(self.folder, error) from error
        try:
            self._thread = threading.Thread(target=self._work, name="unvanish-store", daemon=True)
            self._connection = connect(self.file)
            self._place = os.stat(self.file)
            self._before = read_losses(self._connection, note)
            self.first = rewind(self._connection, start)
            keep_layout(self._connection, self.first)
            self.describe(closed=False)
            _stores.add(self)
            note_opening(self)
            self._thread.start()
        except BaseException as error:
            self._disconnect()
            self._lock.release()
            if isinstance(error, (OSError, ValueError, sqlite3.Error)):
                raise _refuse(self.folder, error) from error
            raise

    @property
    def losses(self) -> Losses:
        """What could not be written so far, and why the last write failed."""
        return self._backlog.losses

    def lose(self, losses: Losses) -> None:
        """Count what was lost on its way to this writer."""
        self.losses.add(losses)

    def flush(self, seconds: float = 10.0) -> bool:
        """Wait until all records so far are written; False if that takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        self._wake.set()
        while len(self._backlog) and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        return not len(self._backlog)

    def close(self) -> None:
        """Write what waits and end the thread; what is lost is said once. Harmless when repeated."""
        if self._ended:
            return
        self._closed = True
        self._stop.set()
        self._wake.set()
        self._thread.join(CLOSING)
        if self._thread.is_alive():
            self.losses.failure = f"the disk has not answered for {CLOSING:g} s"
        elif not self._served:
            self._break(RuntimeError("its thread has ended"))
            self._disconnect()
        self._backlog.give_up()
        self._report()
        self._ended = True

    def abandon(self) -> None:
        """In a forked child: write nothing and close nothing, which is the parent's to do."""
        self._closed = self._ended = True
        if self._connection is not None:
            _abandoned.append(self._connection)

    def _report(self) -> None:
        """Say what was lost, and leave a note if the file itself cannot hold the number."""
        losses = self.losses
        if losses.dropped and not self.fault:
            why = f" ({losses.failure})" if losses.failure else ""
            self._say(f"{losses.describe()} of the run in {self.folder} could not be written{why}")
        total = self._before.plus(losses)
        with suppress(OSError):  # without it nothing can be written there, and the warning has said it
            self._lock.note(dropped=total.dropped, lost_steps=total.steps, failure=losses.failure[:200])
        self._lock.release(keep=bool(losses.failure))

    def _say(self, text: str) -> None:
        """Warn, once."""
        if text not in self._told:
            self._told.add(text)
            caution(f"unvanish: {text}")

    def put(self, table: str, row: tuple[Any, ...]) -> None:
        """Take one row; too many that wait are counted as lost."""
        self.put_all(table, (row,))

    def put_all(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take rows of one table; too many that wait are counted as lost."""
        if self._closed:
            return
        self._backlog.put_all(table, rows)
        if self._thread.ident is not None and not self._thread.is_alive():
            self._break(RuntimeError("its thread has ended"))
            self._backlog.give_up()

    # -- the thread

    def _work(self) -> None:
        """Serve; what fails outside of a write is said, and the thread begins again."""
        tries = 0
        while tries < LAST_TRIES:
            try:
                self._serve()
                self._served = True
                return
            except BaseException as error:  # nobody else hears it
                self._break(error)
                self._stop.wait(self.pause)
            tries += self._stop.is_set()

    def _serve(self) -> None:
        """Write until the run ends, then its end."""
        while not self._stop.is_set():
            self._wake.wait(self.pause)
            self._wake.clear()
            self._try(self._write)
        for attempt in range(LAST_TRIES):
            if self._try(self._write) and self._try(self._finish):
                break
            time.sleep(0.1 * attempt)
        else:
            self._try(self._finish)
        self._disconnect()

    def _try(self, work: Callable[[], bool]) -> bool:
        """Whether a part of the work succeeded; whatever fails, the thread goes on."""
        try:
            return work()
        except Exception as error:
            self._fail(error)
            return False

    def _write(self) -> bool:
        """Write what waits; False, and it waits again, if that fails."""
        try:
            records = self._backlog.take()
            connection = self._reach_file()
            if records:
                with connection:
                    self._append(connection, records)
            self._backlog.settle(records)
        except Exception as error:  # whatever it is, the training goes on, and the next try may succeed
            self._fail(error)
            return False
        for table, _ in records:
            self._written.count(table)
        self.losses.failure = ""
        return True

    def _append(self, connection: sqlite3.Connection, records: Sequence[Record]) -> None:
        for table, group in groupby(records, itemgetter(0)):
            rows = [row for _, row in group]
            marks = ",".join("?" * len(rows[0]))
            connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)
        self._thin(connection, sum(len(row[1]) for table, row in records if table == "samples"))

    def _reach_file(self) -> sqlite3.Connection:
        """The connection, made again if it broke or if the file is gone; OSError if there is no folder."""
        there = find_file(self.file)
        if self._connection is not None and there is not None and os.path.samestat(there, self._place):
            return self._connection
        self._disconnect()
        if not self.file.parent.is_dir():
            raise OSError("its folder is gone")
        if not self._lock.holds():
            self._lock.release()
            self._lock = FolderLock(self._claim)
        self._connection = connect(self.file)
        if there is None or there.st_ino != self._place.st_ino:
            self._forget_written()
            self._backlog.repeat()
        self._place = os.stat(self.file)
        return self._connection

    def _forget_written(self) -> None:
        """What this process wrote went with its file."""
        self.losses.add(self._written)
        self._written = Losses()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _fail(self, error: Exception) -> None:
        why = str(error)[:200] or type(error).__name__
        if str(getattr(error, "sqlite_errorname", "")).startswith(BROKEN):
            self._disconnect()  # the next try opens the file again
        self.losses.failure = why
        if isinstance(error, (OSError, sqlite3.Error)):
            self._say(
                f"the run in {self.folder} cannot be written at the moment ({why}); the training goes on,"
                " and unvanish keeps trying"
            )
        else:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """A fault of ours: said once, and noted."""
        found = locate(error)
        self.losses.failure = found
        if not self.fault:
            self.fault = found
            self._say(
                f"the record of the run in {self.folder} failed inside itself ({found}); the training goes"
                " on, and what cannot be written is counted. Please report this"
            )

    def _finish(self) -> bool:
        """Write down how the run ended, and leave one file without a log beside it."""
        there = find_file(self.file)
        if there is None or there.st_ino != self._place.st_ino:
            self._forget_written()
        if not self.losses.failure:
            total = self._before.plus(self.losses)
            ended = {"closed": True, "dropped": total.dropped, "lost_steps": total.steps}
            for key, value in ended.items():
                self._backlog.put("meta", (key, json.dumps(value)))
            if self._write() and self._connection is not None:
                shrink_to_one_file(self._connection)
        return not self.losses.failure

    def _thin(self, connection: sqlite3.Connection, fresh: int) -> None:
        self._bytes += fresh
        if self._bytes <= self.limit:
            return
        middle = connection.execute(
            "SELECT step FROM samples ORDER BY step LIMIT 1 OFFSET (SELECT count(*) FROM samples) / 2"
        ).fetchone()[0]
        connection.execute(
            "DELETE FROM samples WHERE step IN (SELECT step FROM (SELECT step, row_number() OVER"
            " (ORDER BY step) AS place FROM samples WHERE step < ?) WHERE place % 2 = 0)"
            " AND step NOT IN (SELECT step FROM findings UNION SELECT last FROM findings)",
            (middle,),
        )
        size = connection.execute("SELECT coalesce(sum(length(cells)), 0) FROM samples").fetchone()[0]
        self._bytes = int(size)


def _refuse(folder: Path, error: Exception) -> StoreError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StoreError(f"cannot write a run into {str(folder)[:200]}: {why[:300]}; give another folder")


def _abandon_all() -> None:
    for store in list(_stores):
        store.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
