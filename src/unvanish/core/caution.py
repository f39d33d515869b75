"""Warnings that cannot end anything, and where a fault of ours lies.

Notable: where warnings are errors, the text goes to stderr instead.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
import warnings
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def caution(text: str, category: type[Warning] = RuntimeWarning) -> None:
    """Warn; where a filter turns warnings into errors, or the warning cannot be shown, write to stderr."""
    try:
        warnings.warn(text, category, stacklevel=3)
    except Exception:
        with contextlib.suppress(Exception):
            print(text, file=sys.stderr, flush=True)


def summarize(error: BaseException) -> str:
    """The kind of an exception and its first line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"[:300]


def locate(error: BaseException) -> str:
    """The exception and the innermost line of ours that it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(PACKAGE))]
    if not frames:
        return summarize(error)
    last, place = frames[-1], Path(frames[-1].filename).relative_to(PACKAGE)
    return f"{summarize(error)}, at unvanish/{place}:{last.lineno} in {last.name}"
