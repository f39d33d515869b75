"""Files written whole or not at all, appended to, and read up to a size: the only place that writes a file.

Notable:
- A target that is no regular file (a device, a pipe, a socket, a folder, a link) is refused, not replaced.
- What is written grows under a new name that nobody can guess, in the target's folder; it is gone after any
  failure, Ctrl-C included.
- The file keeps the permissions of the one it replaces.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

MEGABYTE = 1_000_000
NEW = 0o666  # permissions of a new file, less the umask
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


@contextlib.contextmanager
def write_whole(target: Path, what: str = "file", sync: bool = False) -> Iterator[Path]:
    """A path to write to, which becomes `target` if the block ends well; OSError names the file and why not.

    `sync`: the bytes reach the disk before the file gets its name.
    """
    partial, done = target.with_name(f".{secrets.token_hex(8)}.partial{target.suffix}"), False
    try:
        before = refuse_target(target)
        mode = _create(partial)
        yield partial
        os.chmod(partial, mode if before is None else before)
        if sync:
            _flush(partial)
        refuse_target(target)
        partial.replace(target)
        done = True
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(f"cannot write the {what} {target}: {why}") from error
    finally:
        if not done:
            partial.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes | memoryview, what: str = "file") -> Path:
    """Write a file whole or not at all; OSError names the file and the reason."""
    with write_whole(target, what) as partial:
        partial.write_bytes(content)
    return target


def write_text(target: Path, text: str, what: str = "report") -> Path:
    """Write a text file whole or not at all; OSError names the file and the reason."""
    return write_bytes(target, text.encode("utf-8", "backslashreplace"), what)


def append_text(target: Path, text: str) -> None:
    """Add to the end of a regular file, which is made if there is none; OSError names it and the reason."""
    try:
        refuse_target(target)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, NEW)
    except OSError as error:
        raise OSError(f"cannot write to {target}: {error.strerror or error}") from error
    with open(handle, "wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def refuse_target(target: Path) -> int | None:
    """The permissions of the file to be replaced, None if there is none; OSError if it is no regular file."""
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode):
        return stat.S_IMODE(mode) & 0o777
    kind = KINDS.get(stat.S_IFMT(mode), "no regular file")
    leads = f" to {os.readlink(target)}" if stat.S_ISLNK(mode) else ""
    raise OSError(f"it is {kind}{leads}, and only regular files are replaced; give another path")


def read_text(path: Path, most: int = MEGABYTE) -> str:
    """The text of a regular file of at most `most` bytes, in UTF-8; OSError says why it is not read."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise OSError(f"it is not text in UTF-8 ({error.reason} at byte {error.start})") from error


def read_bytes(path: Path, most: int = MEGABYTE) -> bytes:
    """The content of a regular file of at most `most` bytes; OSError says why it is not read."""
    if not path.is_file():
        raise OSError("there is no such file" if not path.exists() else "it is no regular file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        size = max(path.stat().st_size, len(content))
        raise OSError(f"it has {size / MEGABYTE:,.1f} MB, more than the {most / MEGABYTE:g} MB that are read")
    return content


def _create(path: Path) -> int:
    """Make a new, empty file; its permissions."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NEW)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


def _flush(path: Path) -> None:
    """Force a file to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
