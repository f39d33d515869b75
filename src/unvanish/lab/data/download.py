"""Downloads: reported, resumed after an interruption, verified by checksum, moved into place in one step.

Notable:
- A file grows as `NAME.partial` and gets its name only when its checksum is right.
- A partial file is completed by an HTTP range; a server without ranges sends the whole file again.
"""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from unvanish.lab.data.fields import Fetch
from unvanish.lab.data.problems import DataError
from unvanish.lab.data.spec import DataSpec

CHUNK = 1 << 18
TRIES = 3
TIMEOUT = 30  # seconds without an answer


def fetch_all(spec: DataSpec, folder: Path, allowed: bool, wanted: Sequence[str]) -> None:
    """Download the files of a spec's `download` into a folder; DataError says what to do by hand."""
    todo = [item for item in spec.download if not (folder / item.to).exists()]
    if not todo:
        return
    if not allowed:
        raise DataError(f"{spec.name}: {' or '.join(wanted)} was not found.\n{instructions(spec, folder)}")
    for item in todo:
        try:
            fetch(item, folder)
        except (OSError, HTTPException) as error:
            raise DataError(
                f"{spec.name}: {item.urls[0]} could not be fetched ({reason(error)}).\n"
                f"{instructions(spec, folder)}"
            ) from error


def instructions(spec: DataSpec, folder: Path) -> str:
    """What to fetch and where to put it, one file per line."""
    lines = [f"  {item.urls[0]}  ->  {folder / item.to}{_size(item.size)}" for item in spec.download]
    ending = "or set `path:` or UNVANISH_DATA to the folder that contains them."
    return "\n".join(["Fetch by hand, on any machine:", *lines, ending])


def fetch(item: Fetch, folder: Path) -> Path:
    """Download one file; OSError if no address answers, DataError if its checksum is wrong."""
    target = folder / item.to
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    for attempt in range(TRIES * len(item.urls)):
        url, resumed = item.urls[attempt % len(item.urls)], partial.exists()
        try:
            _transfer(url, partial, target)
        except (OSError, HTTPException):
            if attempt + 1 == TRIES * len(item.urls):
                raise
            continue
        got = checksum(partial, item.checksum)
        if not item.checksum:
            _report(f"no checksum is given for {target.name}; it has {got}")
        if got == item.checksum or not item.checksum:
            os.replace(partial, target)
            return target
        partial.unlink()
        if not resumed:
            break
    raise DataError(
        f"{item.urls[0]} has the checksum {got}, not {item.checksum}: the file there has changed, or "
        f"it was altered on the way; nothing was kept. If the new file is right, correct the checksum "
        f"in the data YAML"
    )


def checksum(file: Path, wanted: str) -> str:
    """A file's checksum in the form of `wanted`, "sha256:..." or "md5:..."; sha256 if that is empty."""
    method = wanted.partition(":")[0] or "sha256"
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(method, usedforsecurity=False))
    return f"{method}:{digest.hexdigest()}"


def _transfer(url: str, partial: Path, target: Path) -> None:
    """Append to `partial` what is missing of the file at an address."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "unvanish"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # the partial file was complete
            return
        raise
    with answer, partial.open("ab" if answer.status == 206 else "wb") as file:
        have = have if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        whole = have + int(length) if length else 0
        _report(f"{'resuming' if have else 'downloading'} {url}{_size(whole)} to {target}")
        while block := answer.read(CHUNK):
            file.write(block)
            have += len(block)
    if whole and have < whole:
        raise OSError(f"the connection ended after {have} of {whole} bytes")


def _report(text: str) -> None:
    print(f"unvanish: {text}", file=sys.stderr, flush=True)


def _size(count: int) -> str:
    return f" ({count / 1e6:.1f} MB)" if count else ""


def reason(error: Exception) -> str:
    """Why an address was not reached, in a few words."""
    reason = getattr(error, "reason", None)
    return str(reason or error or type(error).__name__)
