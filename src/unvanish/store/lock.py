"""One writer a folder: a file that stays locked as long as its process lives, and says who that is.

Notable:
- The operating system lets go of the lock when a process ends, however it ends, so no lock is ever stale.
- The file has its full size from the start: a note about what was lost is written in place, which works on a
  full disk.
- The open file is an object of its own, so whatever fails on the way, it is closed when nothing holds it.
- A forked child lets go of its copy, so it cannot hold a folder after its parent.
"""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

SIZE = 1024  # bytes of the file
TRIES, PAUSE = 8, 0.05  # a reader holds the lock for a moment when it asks whether there is a writer
NEW = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a pipe waits for nobody

_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class Taken(OSError):
    """Somebody else writes; the text says who."""


class HeldFile(io.FileIO):
    """An open file that is closed without a word when nothing holds it."""

    def __del__(self) -> None:
        self.close()


class FolderLock:
    """A lock on what a file stands for; `Taken` names the process that holds it, OSError says what failed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._about: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname(), "began": time.time()}
        self._file = _acquire(path)
        _held.add(self)
        with suppress(OSError):  # a full disk
            self.note()

    def holds(self) -> bool:
        """Whether the locked file is still the one at its path."""
        return not self._file.closed and _is_same(self._file.fileno(), self.path)

    def note(self, **facts: Any) -> None:
        """Write facts next to the holder's name, in place; OSError if even that fails."""
        self._about.update(facts)
        if not self._file.closed:
            self._file.seek(0)
            self._file.write(json.dumps(self._about)[:SIZE].ljust(SIZE).encode("ascii"))

    def release(self, *, keep: bool = False) -> None:
        """Let go, and remove the file unless its note shall be kept; harmless when repeated."""
        try:
            if not keep and self.holds():
                with suppress(OSError):
                    self.path.unlink()
        finally:
            self._file.close()

    def abandon(self) -> None:
        """In a forked child: close the copy of the file, which leaves the parent's lock as it is."""
        self._file.close()


def read_note(path: Path) -> tuple[dict[str, Any], bool]:
    """What a lock's file says ({} without one), and whether its writer is alive."""
    try:
        handle = os.open(path, os.O_RDONLY | WAIT)
    except OSError:
        return {}, False
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return {}, False
        held = not _try_lock(handle, shared=True)
        found = json.loads(os.read(handle, SIZE))
    except (OSError, ValueError, RecursionError):
        return {}, False
    finally:
        os.close(handle)
    return (found, held) if isinstance(found, dict) else ({}, held)


def name_writer(note: dict[str, Any]) -> str:
    """The holder in words."""
    if note.get("pid") == os.getpid() and note.get("host") == socket.gethostname():
        return "this process already writes it; close that one first"
    if not note:
        return "another process writes it"
    return f"process {note.get('pid')} on {str(note.get('host'))[:80]!r} writes it"


def _acquire(path: Path) -> HeldFile:
    for attempt in range(TRIES):
        file = HeldFile(path, "r+", opener=lambda name, _: os.open(name, NEW | WAIT, 0o644))
        try:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(f"{path} is not a file")
            if _try_lock(file.fileno()) and _is_same(file.fileno(), path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        time.sleep(PAUSE * (attempt > 0))
    raise Taken(name_writer(read_note(path)[0]))


def _is_same(handle: int, path: Path) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def _try_lock(handle: int, shared: bool = False) -> bool:
    """Whether the lock is ours now; on a file system without locks it always is."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, SIZE, os.SEEK_SET)  # behind the note, which others may then read
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        if shared:
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _abandon_all() -> None:
    for lock in list(_held):
        lock.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
