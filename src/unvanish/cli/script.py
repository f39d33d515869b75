"""A Python script run as the interpreter would: its own arguments, `__main__`, exit code and exceptions."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

RUNPY = runpy.__file__


def run_script(path: Path, arguments: Sequence[str]) -> int:
    """Run a script to its end and give its exit code; KeyboardInterrupt passes."""
    before, folders = sys.argv, sys.path[:]
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        return _read_code(end.code)
    except Exception as error:
        error.__traceback__ = trace = _skip_own(error.__traceback__)
        sys.excepthook(type(error), error, trace)
        return 1
    finally:
        sys.argv, sys.path[:] = before, folders
    return 0


def _read_code(code: object) -> int:
    """The exit code of `sys.exit(code)`."""
    if code is None or isinstance(code, int):
        return int(code or 0)
    print(code, file=sys.stderr)
    return 1


def _skip_own(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the script's own first line on."""
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, RUNPY, "<frozen runpy>"):
        trace = trace.tb_next
    return trace
