"""The places of data: the working folder, ./datasets, $UNVANISH_DATA; the cache holds unpacked archives."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from unvanish.lab.data.limits import RATIO, SPARE
from unvanish.lab.data.problems import DataError
from unvanish.lab.data.spec import SETS, DataSpec
from unvanish.store.files import write_bytes

BLOCK = 1 << 20
FILES, PER_FILE = 100_000, 100  # members that an archive may have in any case, and bytes of it for each more
TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


def cache_folder() -> Path:
    """The folder for files derived from data: $UNVANISH_CACHE, or unvanish in the user's cache folder."""
    own = os.environ.get("UNVANISH_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own).expanduser() if own else Path(base).expanduser() / "unvanish"


def roots(spec: DataSpec) -> list[Path]:
    """The folders in which relative paths are looked up, in order."""
    listed = [Path.cwd(), Path.cwd() / "datasets"]
    if os.environ.get("UNVANISH_DATA"):
        listed.append(Path(os.environ["UNVANISH_DATA"]).expanduser())
    if spec.file is not None and spec.file.resolve().parent != SETS.resolve():
        listed.insert(0, spec.file.resolve().parent)
    return list(dict.fromkeys(listed))


def candidates(spec: DataSpec) -> list[Path]:
    """Every folder that a spec's `path:` may mean."""
    paths = [Path(p).expanduser() for p in spec.path] or [Path()]
    return [p if p.is_absolute() else root / p for p in paths for root in roots(spec)]


def download_folder(spec: DataSpec) -> Path:
    """The folder for a download, below ./datasets or $UNVANISH_DATA; DataError for one elsewhere."""
    own = os.environ.get("UNVANISH_DATA")
    bases = [Path.cwd() / "datasets", *([Path(own).expanduser()] if own else [])]
    existing = [f for f in candidates(spec) if f.is_dir() and os.access(f, os.W_OK)]
    inside = [f for f in existing if any(_is_below(f, base) for base in bases)]
    if inside and spec.path:
        return inside[0]
    found = bases[-1] / Path(spec.path[0] if spec.path else spec.name).expanduser()
    if not any(_is_below(found, base) for base in bases):
        raise DataError(
            f"{spec.name}: {found} lies outside of {' and '.join(map(str, bases))}, the only folders that"
            " downloads go to; fetch the data by hand, or set UNVANISH_DATA"
        )
    return found


def _is_below(place: Path, base: Path) -> bool:
    """Whether a folder lies below another one, links followed."""
    return base.resolve() in place.resolve().parents


def missing_message(spec: DataSpec, names: Sequence[str]) -> str:
    """The message if none of the files was found: the folders searched, and the next step."""
    looked = "\n  ".join(map(str, candidates(spec)))
    return (
        f"{spec.name}: none of {', '.join(names)} is in\n  {looked}\nPut the data into one of these folders, "
        f"or set `path:` in a data YAML or the variable UNVANISH_DATA to the folder that contains them"
    )


def write_cache(place: Path, content: bytes | memoryview) -> None:
    """Write a file of the cache in one step; if the cache cannot be written, nothing happens."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, content, "cache")
    except OSError:
        return


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of a tar or zip archive."""
    return path.name.lower().endswith((*TARS, ".zip"))


def fingerprint(*paths: Path) -> str:
    """Twelve hex digits that change with the names, sizes and times of files."""
    states = []
    for path in paths:
        state = os.stat(path)
        states.append(f"{os.path.abspath(path)}|{state.st_size}|{state.st_mtime_ns}")
    return hashlib.sha256("\n".join(states).encode()).hexdigest()[:12]


def unpack(archive: Path) -> Path:
    """Unpack an archive once into the cache and return the folder; DataError if it is broken."""
    target = cache_folder() / "unpacked" / f"{archive.name.split('.')[0]}-{fingerprint(archive)}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise DataError(f"{target.parent} cannot be written ({error}): set UNVANISH_CACHE") from error
    try:
        size = archive.stat().st_size
        left, count = RATIO * size + SPARE, FILES + size // PER_FILE
        for name, stream in members(archive):
            place = work / safe_path(name, archive)
            place.parent.mkdir(parents=True, exist_ok=True)
            with stream, place.open("xb") as file:
                left, count = left - copy_up_to(stream, file, left), count - 1
            if left < 0 or count < 0:
                raise OSError(
                    f"its {size:,} bytes unpack to far more, {RATIO} times as much or a host of files"
                )
        if not target.is_dir():
            work.rename(target)
    except DataError:
        raise
    except Exception as error:  # a damaged archive may fail in any way
        raise DataError(f"{archive} cannot be unpacked into the cache: {error}; fetch it again") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def copy_up_to(stream: IO[bytes], file: IO[bytes], most: int) -> int:
    """Copy a stream; stops after more than `most` bytes. The number of bytes copied."""
    done = 0
    while done <= most and (block := stream.read(BLOCK)):
        file.write(block)
        done += len(block)
    return done


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the regular files of an archive, without links and devices."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    yield info.filename, zipped.open(info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is not None:
                yield member.name, stream


def safe_path(name: str, archive: Path) -> Path:
    """A member's path below the target; DataError if it would leave it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(
            f"{archive} contains {name!r}, which would be written outside its folder; not unpacked"
        )
    return Path(*path.parts)
