"""A fault at a line of unvanish: which lines run, and raising at one of them, once.

Left out are the doors: the lines of the guard itself, and those that do nothing but call it, or the program's
own function, or hold a name. So are lines that do nothing, as `return` or `try:` alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import linecache
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import unvanish

PACKAGE = str(Path(unvanish.__file__).parent)
WATCH = ("clinic/", "probes/", "surgery/clipping", "rules/", "core/", "store/")
# By file and qualified name. Behind each stands what its lines are: the guard itself, a call of the guard or
# of the program's own function, or a name that is held. What else they do, they do in a `try` of their own.
DOORS = {
    ("probes/live/guard.py", "WatchGuard.run"),
    ("probes/live/guard.py", "WatchGuard.run_anyway"),
    ("probes/live/guard.py", "WatchGuard.fail"),
    ("probes/live/guard.py", "WatchGuard.__init__"),  # names, before there is a guard
    ("probes/live/guard.py", "WatchGuard.stepped"),  # counts, around a call of the guard
    ("probes/live/guard.py", "WatchEntry.__call__"),
    ("probes/live/guard.py", "PassingEntry.__call__"),
    ("probes/live/guard.py", "SwiftEntry.__call__"),
    ("probes/live/guard.py", "StepEntry.__call__"),
    ("core/caution.py", "caution"),  # the warning itself
    ("probes/live/eyes.py", "Eyes.__torch_function__"),  # the program's function, then the guard
    ("probes/live/witness.py", "Witness.__torch_function__"),  # the same
    ("probes/live/replay.py", "StepReplay.__torch_function__"),  # the same
    ("probes/compositions.py", "_find_override"),  # calls `find_overrides`, which is tried
    ("probes/live/backwards.py", "_run_backward"),  # entries, and the program's backward; a `try`
    ("probes/live/backwards.py", "_run_backward.<locals>.<listcomp>"),  # entries
    ("probes/live/closures.py", "ClosureEntry.__call__"),  # the guard
    ("probes/live/closures.py", "ClosureEntry._wrap.<locals>.closure"),  # the program's closure, the guard
    ("clinic/watch/optimizers.py", "StrangerEntry.__call__"),  # the guard
    ("clinic/watch/scaling.py", "ScalerStep.__call__"),  # the guard, the program's step
    ("clinic/watch/scaling.py", "ScalerStep._step"),  # the program's step
    ("clinic/watch/account.py", "WatchReport.__init__"),  # names
    ("clinic/watch/opening.py", "watch"),  # names
    ("clinic/watch/opening.py", "_open"),  # the guard
    ("clinic/watch/front.py", "Watch.__init__"),  # names, the guard
    ("clinic/watch/front.py", "Watch.__exit__"),  # calls `close`
    ("clinic/watch/front.py", "Watch.__del__"),  # the same
    ("clinic/watch/front.py", "Watch.step"),  # an entry
    ("clinic/watch/front.py", "Watch.close"),  # the guard
}
IDLE = ("return", "try:", "pass")  # lines that do nothing
Site = tuple[str, str, int]  # file, function, line
Fault = tuple[Site, int, int]  # where, at its how-many-th run, and how often it runs
FORK = ctypes.PyDLL(None).fork  # without what Python does at a fork, which would end the watch


class Planted(RuntimeError):
    """A fault that we made."""


def _place(code: Any) -> tuple[str, str] | None:
    """The file and function of a code object, if faults may be planted there."""
    if not code.co_filename.startswith(PACKAGE):
        return None
    file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
    name = code.co_qualname
    if not file.startswith(WATCH) or (file, name) in DOORS or code.co_name == "<module>":
        return None
    return file, name


@contextlib.contextmanager
def traced(trace: Callable[..., Any]) -> Iterator[None]:
    """Every call in this thread, and in threads that begin, is traced."""
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]


def find_sites(run: Callable[[], Any]) -> Counter[Site]:
    """Every line of the watch that runs, and how often."""
    seen: Counter[Site] = Counter()

    def trace(frame: Any, event: str, value: Any) -> Any:
        place = _place(frame.f_code)
        if place is None:
            return None

        def line(frame: Any, event: str, value: Any) -> Any:
            if event == "line":
                seen[(*place, frame.f_lineno)] += 1
            return line

        return line

    with traced(trace):
        run()
    idle = [s for s in seen if linecache.getline(f"{PACKAGE}/{s[0]}", s[2]).strip() in IDLE]
    for site in idle:
        del seen[site]
    return seen


def plant(site: Site, at: int, run: Callable[[], Any]) -> tuple[Any, int]:
    """Run with a fault at the `at`-th time of a site; the result, and how often the site was reached.

    That is less than `at` if there was no fault.
    """
    file, function, number = site
    count, times, planted = itertools.count(1), [0], [False]  # one step each, so no thread takes another's

    def trace(frame: Any, event: str, value: Any) -> Any:
        code = frame.f_code
        if code.co_qualname != function or _place(code) != (file, function):
            return None
        return line

    def line(frame: Any, event: str, value: Any) -> Any:
        if event == "line" and frame.f_lineno == number:
            times[0] = mine = next(count)
            if mine == at and not _is_finalizing(frame):
                planted[0] = True
                raise Planted("a fault")
        return line

    with traced(trace):
        found = run()
    return found, at if planted[0] else min(times[0], at - 1)


class Branches:
    """Runs once; where a fault is due, a child of the process goes on with it, and this one without.

    For runs without threads, which a child would lack. `wait(fault, child, reading)` hears what the child
    says; in the child `own` is its fault, `writing` where it says it.
    """

    def __init__(self, faults: Iterable[Fault], wait: Callable[[Fault, int, int], None]) -> None:
        self._due = {(site, at): (site, at, times) for site, at, times in faults}
        self._functions = {site[:2] for site, _ in self._due}
        self._wait = wait
        self.own: Fault | None = None
        self.writing = -1

    def run(self, work: Callable[[], Any]) -> Any:
        """What the work gives, in this process and in each child."""
        seen: Counter[Site] = Counter()

        def trace(frame: Any, event: str, value: Any) -> Any:
            place = _place(frame.f_code)
            if place not in self._functions:
                return None

            def line(frame: Any, event: str, value: Any) -> Any:
                if event == "line":
                    site = (*place, frame.f_lineno)
                    seen[site] += 1
                    if (fault := self._due.get((site, seen[site]))) and not _is_finalizing(frame):
                        self._branch(fault)
                return line

            return line

        with traced(trace):
            return work()

    def _branch(self, fault: Fault) -> None:
        del self._due[fault[0], fault[1]]
        reading, writing = os.pipe()
        if child := FORK():
            os.close(writing)
            self._wait(fault, child, reading)
            return
        os.close(reading)
        self.own, self.writing = fault, writing
        raise Planted("a fault")

    def left(self) -> list[Fault]:
        """The faults that were not reached."""
        return list(self._due.values())


def _is_finalizing(frame: Any) -> bool:
    """Whether Python runs it while it deletes something: what fails there goes nowhere."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
