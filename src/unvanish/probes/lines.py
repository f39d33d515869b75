"""The line of the user's code that is running: the nearest frame outside torch and outside the probes."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import FrameType

import torch

TORCH = str(Path(torch.__file__).parent)
PROBES = str(Path(__file__).parent)
ENTRY = (
    "run_forward.py",
    "run_backward.py",
    "outline.py",
)  # below it lies the one who asked for the examination


def find_line(depth: int = 1) -> str:
    """`file.py:12`, with the path as it is seen from the working directory; "" if no such line is known."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(PROBES):
            if path.endswith(ENTRY):
                return ""
        elif not path.startswith(TORCH):
            return name_line(path, frame.f_lineno)
        frame = frame.f_back
    return ""


def name_line(path: str, number: int) -> str:
    """`file.py:12`."""
    return f"{_short(path)}:{number}"


@cache
def _short(path: str) -> str:
    """A path below the working directory as it is seen from there, else the file's name."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return Path(path).name
