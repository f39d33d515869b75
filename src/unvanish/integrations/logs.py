"""Findings in a logger of Python's `logging`, on a line of their own beside a progress bar.

Notable: tqdm's bars are cleared for the time of the line; under a live display of Rich, handlers that write
to the terminal write to what Rich has put in its place.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "note": logging.INFO}


def write_by(logger: Any) -> Callable[[str, str], None]:
    """A function of a text and its severity that writes into a logger, or an adapter of one."""
    return partial(_write, logger)


def _write(logger: Any, text: str, severity: str) -> None:
    with spare_bars(logger):
        logger.log(LEVELS[severity], text)


@contextlib.contextmanager
def spare_bars(logger: Any = None) -> Iterator[None]:
    """What is written within tears no bar; `logger`: the one that writes."""
    with contextlib.ExitStack() as stack:
        bars, rich = sys.modules.get("tqdm"), sys.modules.get("rich")
        if bars is not None and getattr(bars.tqdm, "_instances", None):
            stack.enter_context(bars.tqdm.external_write_mode(file=sys.stderr))
        if rich is not None and _is_live(rich.get_console()):
            stack.enter_context(_redirect(logger))
        yield


def _is_live(console: Any) -> bool:
    """Whether a live display of Rich is on: a stack of them since Rich 14.1, the one of them before."""
    return bool(getattr(console, "_live_stack", None) or getattr(console, "_live", None))


@contextlib.contextmanager
def _redirect(logger: Any) -> Iterator[None]:
    """Handlers of a logger that write to the terminal write to `sys.stderr` as it is now."""
    terminal = (sys.__stderr__, sys.__stdout__)
    moved = []
    for handler in _list_handlers(logger):
        if isinstance(handler, logging.StreamHandler) and handler.stream in terminal:
            moved.append((handler, handler.setStream(sys.stderr)))
    try:
        yield
    finally:
        for handler, stream in moved:
            if stream is not None:
                handler.setStream(stream)


def _list_handlers(logger: Any) -> list[logging.Handler]:
    """The handlers that a record of this logger reaches."""
    found: list[logging.Handler] = []
    one = getattr(logger, "logger", logger)  # an adapter stands in front of one
    while isinstance(one, logging.Logger):
        found += one.handlers
        one = one.parent if one.propagate else None
    return found
