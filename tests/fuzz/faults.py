"""A fault at every line of a watch, in turn: the training must go on bit for bit, and nothing may stay.

Run it by hand: `python -m tests.fuzz.faults` (all lines of all loops), `--loop recurrent --every 7`. A line
of unvanish that runs while a training is watched, in its own thread or in one of ours, is made to raise once,
at its first and at its last run; what is left out says `tests.fuzz.planting`. `--once`: a line that a loop
before has had is left out. `--file store/`: only lines of such files; `--count` draws some by `--seed`.
Each fault is tried in a fork of one process that has everything imported; a fork goes on until something does
harm, so that the next fault is judged alone.
A reading of an examined step that fails is left out and noted; the watch goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import select
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tests.fuzz.planting import Branches, Fault, Site, find_sites, plant
from tests.fuzz.watched import LOOPS, run_alone, same

import unvanish
from unvanish.clinic.watch import opening, ranks
from unvanish.clinic.watch.line import Line
from unvanish.store import Run, Store, StoreError, open_run
from unvanish.store.schema import FILE

LONGEST = 8.0  # seconds of a run
PATIENCE = 120.0  # seconds until a process counts as hung
SHARE = 50  # faults tried in one fork
# torch's own answer is taken in place of theirs, so nothing is given up
SILENT = ("_are_taken_over", "_is_ordinary", "is_overridden", "find_overrides")
UNREACHED, SLOW = "not reached", "it took"


Seen = list[tuple[Any, Path | None]]  # watches and their folders


def run_watched(name: str, folder: str, seen: Seen) -> list[Any]:
    """One of the loops, watched; its watches go into `seen`."""
    loop, options = LOOPS[name]
    with company() as sit_down:

        def look(*args: Any, rank: int | None = None, **more: Any) -> Any:
            chosen = {"on_finding": "silent", **options, **more}
            place = Path(folder) / str(rank or 0)
            if chosen.get("run"):
                chosen["run"] = place
            with sit_down(rank):
                watch = unvanish.watch(*args, **chosen)
            seen.append((watch, place if chosen.get("run") else None))
            return watch

        return loop(look)


def run_in_folder(work: Callable[[Callable[[], list[Any]]], Any], name: str) -> tuple[Any, list[str], bool]:
    """What `work` makes of a watched loop, what is wrong with its records, and whether a watch that goes on
    has noted a fault of ours.
    """
    seen: Seen = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = work(lambda: run_watched(name, folder, seen))
        wrong = [text for watch, place in seen if place for text in judge_record(watch, place)]
        for thread in threading.enumerate():
            if thread.name.startswith("unvanish"):
                thread.join(1)
                wrong += [f"the thread {thread.name} goes on"] if thread.is_alive() else []
        told = [note for watch, _ in seen if not watch.failure for note in watch.notes]
        return found, wrong, any("Planted" in note for note in told)


@contextlib.contextmanager
def company() -> Iterator[Callable[[int | None], Any]]:
    """What seats a watch as one rank of two; None: it stays alone."""
    store = torch.distributed.HashStore()
    true = ranks.own_rank, ranks.count_processes, ranks.open_line

    @contextlib.contextmanager
    def sit_down(rank: int | None) -> Iterator[None]:
        if rank is not None:
            ranks.own_rank = opening.own_rank = lambda: rank
            ranks.count_processes = lambda: 2
            ranks.open_line = lambda _: Line(store, "watch/")
        try:
            yield
        finally:
            ranks.own_rank, ranks.count_processes, ranks.open_line = true
            opening.own_rank = ranks.own_rank

    yield sit_down


def judge_record(watch: Any, place: Path) -> list[str]:
    """What is wrong with the record of a watch that was closed."""
    store = watch.store
    if store is None:
        return _judge_folder(place) if place.exists() else []
    lost, troubles = store.losses.steps, [*watch.notes, watch.failure]
    try:
        run = open_run(place)
        kept = len(Run(place, store.file.name).steps()["step"])
    except StoreError as error:
        return [f"the record cannot be read: {error}"]
    found = [] if kept + lost >= watch.steps else [f"{kept} steps kept and {lost} lost of {watch.steps}"]
    found += [] if run.standing().closed else ["the record is not closed"]
    found += ["no note tells of the fault"] if store.fault and not any(map(str, troubles)) else []
    return found + _judge_folder(place, store.file.name)


def _judge_folder(place: Path, name: str = FILE) -> list[str]:
    """Whether a run's folder can be written by the next one."""
    try:
        Store(place, name=name).close()
    except StoreError as error:
        return [f"the folder is held: {error}"]
    return []


def find_leftovers() -> list[str]:
    """What hangs in torch itself when a run has ended."""
    modules, optim = torch.nn.modules.module, sys.modules["torch.optim.optimizer"]
    functional = vars(torch.nn.functional)
    tables = {
        "module pre-hook": modules._global_forward_pre_hooks,
        "module hook": modules._global_forward_hooks,
        "step pre-hook": optim._global_optimizer_pre_hooks,
        "step post-hook": optim._global_optimizer_post_hooks,
    }
    found = [name for name, table in tables.items() if table]
    found += ["function mode"] if torch._C._len_torch_function_stack() else []
    found += (
        ["composition"]
        if functional["has_torch_function"].__module__ != "torch._C"
        and ("unvanish" in str(functional["has_torch_function"].__module__))
        else []
    )
    own = (torch.autograd, "_engine_run_backward"), (torch._tensor, "has_torch_function_unary")
    found += [name for place, name in own if getattr(place, name).__module__.startswith("unvanish")]
    return found


def try_site(name: str, site: Site, at: int, wanted: list[Any]) -> str:
    """What came of a fault at a site that should not have; empty if nothing.

    UNREACHED, if it ran less often this time.
    """
    outcome, reached = _judge(
        name, lambda run: plant(site, at, run), lambda n: site if n >= at else None, wanted
    )
    if reached is None or reached >= at or outcome:
        return outcome
    return try_site(name, site, reached, wanted) if reached > 1 else UNREACHED


def _judge(
    name: str,
    work: Callable[[Callable[[], Any]], Any],
    where: Callable[[Any], Site | None],
    wanted: list[Any],
) -> tuple[str, Any]:
    """What is wrong with a loop's run and what it left, and what `work` said beside the run's result.

    `where`: the site of its fault, if there was one, by what `work` said.
    """
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            began = time.perf_counter()
            (found, said), wrong, noted = run_in_folder(work, name)
            took = time.perf_counter() - began
    except BaseException as error:
        return f"the run ended: {type(error).__name__}: {error}", None
    site, left = where(said), find_leftovers()
    ours = [w for w in told if str(w.message).startswith("unvanish")]
    left_out = noted or (site is not None and is_silent(name, site))
    if not same(found, wanted):
        wrong = ["the run is another one"]
    elif not wrong and left:
        wrong = [f"left behind: {', '.join(left)}"]
    elif not wrong and len(ours) != (site is not None) and (ours or not left_out):
        wrong = [f"{len(ours)} warnings: " + "; ".join(str(w.message)[:200] for w in ours)]
    elif not wrong and took > LONGEST:
        wrong = [f"{SLOW} {took:.1f} s"]
    return "; ".join(wrong), said


def is_silent(name: str, site: Site) -> bool:
    """Whether nothing is given up by a fault there: another way is taken, or a graph was freed.

    Where a scaler leaves steps out, their examinations count for nothing, and another one is made.
    """
    file, function, _ = site
    read = not file.startswith("probes/live/") or file.endswith(("/witness.py", "/readable.py"))
    if name == "scaled" and file.startswith("probes/") and read:
        return True
    if file.startswith(
        ("probes/kept_", "probes/process", "probes/reach")
    ):  # what is not put back at once is at the second try
        return True
    if file in ("probes/compositions.py", "probes/modes.py"):
        return function.startswith(SILENT)
    return (file, function) in (
        ("probes/live/backwards.py", "_ask_of_one"),
        ("probes/live/backwards.py", "_ask_of_some"),
        ("probes/live/kinds.py", "may_matter"),
        ("probes/intact.py", "Kept._run"),  # the same
        ("probes/critical.py", "StepTaken.slope"),  # some graphs give none, and it is not what is judged
    )


# -- one after the other, in forks


@dataclass
class Tally:
    """What came of the faults of a loop."""

    lines: int = 0
    tried: int = 0
    unreached: int = 0
    harms: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.tried} faults at {self.lines} lines, {len(self.harms)} did harm, "
            f"{self.unreached} were not reached"
        )


def try_all(name: str, faults: Sequence[Fault], hear: Callable[[Fault, str], None]) -> None:
    """Try the faults of a loop; `hear` is told what came of each, as `try_site` says it."""
    wanted = run_alone(name)
    left = list(faults)
    gc.freeze()  # a fork copies no more than it changes
    if not LOOPS[name][1].get("run"):
        _branch_off(name, faults, wanted, hear)
        left = []
    while left:
        tried = 0
        for outcome in _fork(name, left[:SHARE], wanted):
            hear(left[tried], outcome)
            tried += 1
        left = left[tried:]


def _branch_off(
    name: str, faults: Sequence[Fault], wanted: list[Any], hear: Callable[[Fault, str], None]
) -> None:
    """Try the faults in children of one run."""

    def wait(fault: Fault, child: int, reading: int) -> None:
        with os.fdopen(reading, "rb") as lines:
            ready = bool(select.select([lines], [], [], PATIENCE)[0])
            line = lines.readline() if ready else b""
        if not ready:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        text = "it hung" if not ready else line.decode().strip() if line else f"the process ended: {status}"
        hear(fault, "" if text.startswith(SLOW) else text)  # this process waited meanwhile

    branches = Branches(faults, wait)
    text, _ = _judge(
        name,
        lambda run: (branches.run(run), None),
        lambda _: None if branches.own is None else branches.own[0],
        wanted,
    )
    if branches.own is not None:
        os.write(branches.writing, " ".join(text.split()).encode()[:4000] + b"\n")
        os._exit(0)
    for fault in branches.left():
        hear(fault, UNREACHED)


def _fork(name: str, faults: Sequence[Fault], wanted: list[Any]) -> Iterator[str]:
    """What came of the first of the faults, until one did harm; a process that hangs is ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _try_some(name, faults, wanted, writing)
    os.close(writing)
    told, ready = 0, True
    with os.fdopen(reading, "rb") as lines:
        while told < len(faults):
            ready = bool(select.select([lines], [], [], PATIENCE)[0])
            line = lines.readline() if ready else b""
            if not line:
                break
            told += 1
            outcome = line.decode().strip()
            yield outcome
            if outcome not in ("", UNREACHED):
                break
        else:
            line = b"done"
    if not ready:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not line:
        yield "it hung" if not ready else f"the process ended: {os.waitstatus_to_exitcode(status)}"


def _try_some(name: str, faults: Sequence[Fault], wanted: list[Any], writing: int) -> None:
    """In a fork: try the faults until one does harm, tell a line of each; ends the process."""
    try:
        for site, at, _ in faults:
            outcome = " ".join(try_site(name, site, at, wanted).split())
            if outcome.startswith(SLOW) and _is_busy(name, outcome):
                outcome = ""
            os.write(writing, outcome.encode()[:4000] + b"\n")
            if outcome not in ("", UNREACHED):
                break
    finally:
        os._exit(0)


def _is_busy(name: str, outcome: str) -> bool:
    """Whether a run was slow since the machine does other things: one without a fault is slow, too."""
    began = time.perf_counter()
    run_in_folder(lambda run: run(), name)
    return float(outcome.split()[2]) < LONGEST + 3 * (time.perf_counter() - began)


def find_faults(name: str, every: int, file: str, count: int, seed: int) -> tuple[list[Fault], list[str]]:
    """The faults to try in a loop, and what is wrong with its record without any."""
    run_in_folder(lambda run: run(), name)  # what is imported on the way is imported now
    sites, wrong, _ = run_in_folder(find_sites, name)
    chosen = [site for site in sorted(sites) if site[0].startswith(file)][::every]
    if count:
        chosen = random.Random(seed).sample(chosen, min(count, len(chosen)))
    faults = [(site, at, sites[site]) for site in chosen for at in sorted({1, sites[site]})]
    return faults, [f"without a fault: {text}" for text in wrong]


def try_loop(name: str, faults: Sequence[Fault], say: Callable[[str], None] = print) -> Tally:
    """Try the faults in a loop; each harm is said."""
    tally = Tally(len({site for site, _, _ in faults}))

    def hear(fault: Fault, outcome: str) -> None:
        (file, function, line), at, times = fault
        tally.tried += 1
        if outcome == UNREACHED:
            tally.unreached += 1
        elif outcome:
            tally.harms.append(f"{file}:{line} in {function}, run {at} of {times}: {outcome}")
            say(f"{name}: {tally.harms[-1]}")
        if tally.tried % 500 == 0:
            say(f"{name}: {tally.tried} of {len(faults)} so far")

    try_all(name, faults, hear)
    return tally


def main() -> None:
    """Try everything that was asked for and say what did harm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=LOOPS, action="append")
    parser.add_argument("--once", action="store_true", help="leave out lines that a loop before has had")
    parser.add_argument(
        "--without", choices=LOOPS, action="append", default=[], help="and those of this loop"
    )
    parser.add_argument("--every", type=int, default=1, help="only each n-th line")
    parser.add_argument("--file", default="", help="only lines of files whose names begin so")
    parser.add_argument("--count", type=int, default=0, help="so many lines of a loop only, drawn")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    known = {fault[0] for name in asked.without for fault in find_faults(name, 1, "", 0, 0)[0]}
    total, bad = 0, 0
    for name in asked.loop or LOOPS:
        began = time.perf_counter()
        faults, wrong = find_faults(name, asked.every, asked.file, asked.count, asked.seed)
        faults = [fault for fault in faults if not (asked.once and fault[0] in known)]
        known |= {site for site, _, _ in faults}
        for text in wrong:
            print(f"{name}, {text}")
        tally = try_loop(name, faults, lambda text: print(text, flush=True))
        total, bad = total + tally.tried, bad + len(tally.harms) + len(wrong)
        print(f"{name}: {tally}, {time.perf_counter() - began:.0f} s", flush=True)
    print(f"all: {total} faults at {len(known)} different lines, {bad} did harm")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
