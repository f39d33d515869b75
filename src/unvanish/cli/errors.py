"""How the command line reports a failure: one line, after the traceback of the user's own code."""

from __future__ import annotations

import functools
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

OWN = str(Path(__file__).resolve().parents[1])
PLUMBING = (OWN, "<frozen importlib", "importlib/__init__.py", "torch/nn/modules/module.py")


class CallError(Exception):
    """The call was wrong: a line for stderr, the traceback of the user's code if it raised, the exit code."""

    def __init__(self, message: str, trace: str = "", code: int = 2) -> None:
        super().__init__(message)
        self.trace = trace
        self.code = code


def show_error(error: CallError) -> None:
    """Write the error to stderr: the user's traceback first, the one line last."""
    if error.trace:
        print(error.trace, file=sys.stderr)
    print(f"unvanish: {error}", file=sys.stderr)


def show_fault(error: BaseException) -> None:
    """Write an error of unvanish itself to stderr, with its traceback."""
    traceback.print_exception(error)
    print("unvanish: this is a bug in unvanish; please report the lines above", file=sys.stderr)


def stoppable(command: Callable[P, R]) -> Callable[P, R]:
    """A command that ends with one line and exit code 130 on Ctrl-C."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            raise CallError("stopped with Ctrl-C", code=130) from None

    return run


@contextmanager
def their_code(doing: str) -> Iterator[None]:
    """Turn an error of the user's code into a CallError with its traceback; `doing` begins the line."""
    try:
        yield
    except CallError:
        raise
    except (Exception, SystemExit) as error:
        raise CallError(f"{doing} raised {describe_error(error)}", trim_traceback(error)) from error


def describe_error(error: BaseException) -> str:
    """An exception in one line: its type, its first line of text, and the place in the user's files."""
    text = str(error).strip().partition("\n")[0]
    frames = [
        f for f in _drop_plumbing(traceback.extract_tb(error.__traceback__)) if not _is_library(f.filename)
    ]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


def split_crash(crash: Any) -> tuple[str, str, str]:
    """The place of a `ModelCrash`, its reason in one line, and the traceback of the user's code."""
    cause = crash.__cause__ or crash
    place = f"in {crash.site}" if crash.site else "in the model"
    return place, describe_error(cause), trim_traceback(cause)


def trim_traceback(error: BaseException) -> str:
    """The traceback without frames of unvanish, of imports and module calls; "" if none is the user's."""
    full = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = full
    theirs = False
    while part is not None:
        part.stack = _drop_plumbing(part.stack)
        theirs |= not part.stack or not all(_is_library(frame.filename) for frame in part.stack)
        part = part.__cause__ or part.__context__
    return "".join(full.format()).rstrip() if theirs else ""


def _is_library(file: str) -> bool:
    return "site-packages" in file or file.startswith((sysconfig.get_path("stdlib"), "<"))


def _drop_plumbing(frames: traceback.StackSummary) -> traceback.StackSummary:
    kept = [f for f in frames if not any(place in f.filename.replace("\\", "/") for place in PLUMBING)]
    return traceback.StackSummary.from_list(kept)
