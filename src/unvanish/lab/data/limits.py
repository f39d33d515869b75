"""How much of a data set's files is read: measured before it is expanded, refused with the number.

Notable: what a gzip file or an archive unpacks to is counted while it is unpacked, whatever it says.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unvanish.core.memory import measure_memory
from unvanish.lab.data.problems import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

PIXELS = 64_000_000  # of a picture as it is decoded
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "GIF", "TIFF", "PPM", "AVIF")  # none that calls a program
RATIO, SPARE = 50, 64_000_000  # bytes that may come out of each byte of a packed file, and of any
SHARE = 0.25  # of the memory that one part of a data set may take
ODD = {"idna", "punycode", "unicode-escape", "unicode_escape", "raw-unicode-escape", "raw_unicode_escape"}


@contextmanager
def open_picture(place: Any, draft: tuple[str, int] | None = None) -> Iterator[Image]:
    """A picture to be decoded within the block; OSError if it is broken, too large, or no picture.

    `draft`: mode and side that are enough, which makes JPEG files faster to decode.
    """
    from PIL import Image

    try:
        with Image.open(place, formats=FORMATS) as image:
            if draft is not None:
                image.draft(draft[0], (draft[1], draft[1]))
            width, height = image.size
            if width * height > PIXELS:
                raise OSError(f"{width:,} x {height:,} pixels are more than {PIXELS:,}")
            yield image
    except OSError:
        raise
    except Exception as error:  # a decoder may fail in any way on bytes that nobody wrote
        raise OSError(f"{type(error).__name__}: {str(error)[:100]}") from error


def unzip(file: Path) -> bytes:
    """The bytes of a file, unpacked if it ends in .gz; OSError if it is damaged, or a bomb."""
    if file.suffix != ".gz":
        return file.read_bytes()
    most = RATIO * file.stat().st_size + SPARE
    try:
        with gzip.open(file) as stream:
            content = stream.read(most + 1)
    except (EOFError, zlib.error) as error:
        raise OSError(f"{error}") from error
    if len(content) > most:
        raise OSError(f"its {file.stat().st_size:,} bytes unpack to more than {most:,}")
    return content


def check_encoding(name: str) -> str:
    """The encoding of a text, empty if it is to be found; DataError if Python has none of this name."""
    if not name:
        return name
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    if found is None or not getattr(found, "_is_text_encoding", True) or found.name in ODD:
        raise DataError(f"there is no encoding {name!r}; usual ones are utf-8, utf-16, latin-1 and cp1252")
    return name


def refuse_large(count: float, what: str) -> None:
    """DataError if a part of `count` bytes does not fit into memory; `what` says which setting to lower."""
    room = SHARE * measure_memory()
    if count > room:
        raise DataError(f"{what} make {count / 2**30:,.1f} GiB; at most {room / 2**30:.1f} GiB are made here")


def find_below(folder: Path, name: str) -> Iterator[Path]:
    """The places below a folder whose path ends in `name`, in the order of their names; no patterns."""
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():
        return
    for place in sorted(folder.rglob("*")):
        if place.parts[-len(parts) :] == parts:
            yield place
