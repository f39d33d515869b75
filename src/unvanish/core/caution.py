"""Warnings that cannot end anything: where warnings are errors, the text goes to stderr instead."""

from __future__ import annotations

import contextlib
import sys
import warnings


def caution(text: str, category: type[Warning] = RuntimeWarning) -> None:
    """Warn; where a filter turns warnings into errors, or the warning cannot be shown, write to stderr."""
    try:
        warnings.warn(text, category, stacklevel=3)
    except Exception:
        with contextlib.suppress(Exception):
            print(text, file=sys.stderr, flush=True)
