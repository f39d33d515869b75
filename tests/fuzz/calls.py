"""Random command lines, good and hostile: each ends soon with 0, 1 or 2, and a wrong one is one clear line.

    python -m tests.fuzz.calls --count 600 --seed 0
    python -m tests.fuzz.calls --case 0:17

Notable:
- The grammar is drawn from the commands themselves (`grammar`).
- A call runs in a forked child with a folder of its own; the imports are made once. The child's seconds and
  peak memory are measured; its home, its temporary folder and the folder above must stay empty.
- Trainings are cut by `time=`, cures by `--budget`, so that ten seconds mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tests.fuzz.grammar import Case, draw_call, fill_world, list_options, make_world

import unvanish.cli

SECONDS, HANGS = 10.0, 60.0  # of a call: of the processor, of the clock
MEMORY = 1_000_000_000  # bytes, at the peak, with all libraries
LINE = 1300  # letters of a message
RAISES = ("crash", "raising", "leaving", "broken.py", "shouting")  # the user's own code raises there
BLAMES = (" raised ", " crashed ", " failed ")  # a line that says that the user's model did it


@dataclass
class Outcome:
    """What a call did: exit code or minus a signal, output, seconds of processor and clock, bytes."""

    code: int
    out: str
    err: str
    used: float
    wall: float
    peak: int


# -- one call


def call(words: Sequence[str], place: Path) -> Outcome:
    """Make a call in a child whose working folder is `place`/work."""
    out, err = place / "stdout", place / "stderr"
    started = time.monotonic()
    child = os.fork()
    if not child:
        _be_the_command(words, place, out, err)
    status, usage = _wait(child, started)
    code = os.waitstatus_to_exitcode(status)
    texts = [p.read_text(errors="backslashreplace") for p in (out, err)]
    used = usage.ru_utime + usage.ru_stime
    return Outcome(code, *texts, used, time.monotonic() - started, usage.ru_maxrss * 1024)


def _be_the_command(words: Sequence[str], place: Path, out: Path, err: Path) -> None:
    code = 70
    try:
        os.chdir(place / "work")
        os.environ.update(HOME=str(place / "home"), TMPDIR=str(place / "tmp"), NO_COLOR="1", COLUMNS="120")
        tempfile.tempdir = None
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8") for n in (1, 2))
        sys.argv = ["unvanish", *words]
        warnings.resetwarnings()
        unvanish.cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _wait(child: int, started: float) -> tuple[int, Any]:
    """Wait for a child; one that hangs or eats the memory is killed."""
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage
        held = int(Path(f"/proc/{child}/statm").read_text().split()[1] or 0) * os.sysconf("SC_PAGE_SIZE")
        if time.monotonic() - started > HANGS or held > 3 * MEMORY:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return status, usage
        time.sleep(0.003)


def judge(words: Sequence[str], found: Outcome, place: Path, before: set[str]) -> list[str]:
    """What is wrong with a call's outcome."""
    wrong = []
    if found.code not in (0, 1, 2):
        wrong.append(f"exit code {found.code}")
    if found.used > SECONDS or found.wall > HANGS:
        wrong.append(f"{found.used:.1f} s of processor, {found.wall:.1f} s")
    if found.peak > MEMORY:
        wrong.append(f"{found.peak / 1e6:.0f} MB")
    theirs = any(word in " ".join(words) for word in RAISES)
    if "this is a bug in unvanish" in found.err or ("Traceback" in found.err and "unvanish/" in found.err):
        wrong.append("a fault of unvanish")
    elif (
        "Traceback" in found.err + found.out
        and not theirs
        and " raised " not in found.err
        and " crashed " not in found.err
        and " failed " not in found.err
    ):
        wrong.append("a traceback")
    lines = found.err.splitlines()
    if found.code == 2 and words and not theirs and "Traceback" not in found.err:
        told = [line for line in lines if line.startswith("unvanish: ")]
        if len(told) != 1 or len(lines) != 1:
            wrong.append(f"{len(lines)} lines instead of one")
        elif len(told[0]) > LINE or not told[0].isprintable():
            wrong.append("a line that is too long or holds control characters")
    return wrong + _judge_files(found, place, before)


def _judge_files(found: Outcome, place: Path, before: set[str]) -> list[str]:
    wrong = [f"written outside: {p.name}" for p in place.iterdir() if p.name not in STAND]
    for name in ("home", "tmp"):
        strange = [n for n in os.listdir(place / name) if n not in CACHES]
        wrong += [f"written into {name}: {strange[:2]}"] if strange else []
    fresh = list_files(place / "work") - before
    fresh = {f for f in fresh if "__pycache__" not in f}
    if found.code == 2 and fresh:
        wrong.append(f"left by a wrong call: {sorted(fresh)[:3]}")
    for name in sorted(fresh):
        path, text = place / "work" / name, ""
        if "partial" in name or name.endswith((".lock", "-wal", "-journal")):
            wrong.append(f"half-written: {name}")
        if path.suffix in (".html", ".json", ".yaml"):
            text = path.read_text(errors="replace")
        if (path.suffix == ".html" and "</html>" not in text) or (
            path.suffix == ".json" and not _is_json(text)
        ):
            wrong.append(f"half-written: {name}")
    return wrong


CACHES = (".cache", ".ses", ".config")  # of the libraries that write ONNX and draw
STAND = {"work", "home", "tmp", "stdout", "stderr"}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def list_files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() or p.is_symlink()}


# -- many


def run_child(work: Callable[[], None]) -> None:
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the world of the calls could not be made")


def fuzz(numbers: Sequence[tuple[int, int]], loud: bool = False) -> dict[str, list[str]]:
    """Make the calls of these (seed, number); what was wrong, by "seed:number"."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DeprecationWarning)  # Python's own on forking
    failures: dict[str, list[str]] = {}
    codes: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="calls-") as root:
        world = Path(root) / "world"
        make_world(world)
        run_child(lambda: fill_world(world))
        for name in (world / "modules.txt").read_text().split():
            if name not in sys.modules:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        (world / "modules.txt").unlink()
        options = list_options()
        before = list_files(world)
        for seed, number in numbers:
            words = draw_call(Case(f"{seed}:{number}"), options)
            place = Path(root) / f"{seed}-{number}"
            for name in ("home", "tmp"):
                (place / name).mkdir(parents=True)
            shutil.copytree(world, place / "work", symlinks=True, ignore=shutil.ignore_patterns("pipe"))
            os.mkfifo(place / "work" / "pipe")
            found = call(words, place)
            wrong = judge(words, found, place, before)
            codes[found.code] = codes.get(found.code, 0) + 1
            if wrong or loud:
                failures.update({f"{seed}:{number}": wrong} if wrong else {})
                shown = " ".join(ascii(w)[1:-1][:90] for w in words)
                print(f"{seed}:{number}: unvanish {shown}\n    {'; '.join(wrong)}", flush=True)
                tail = re.sub(r"\s*\n", "\n    | ", found.err.strip()[-1500 if loud else -700 :])
                print(f"    | {tail}", flush=True)
            shutil.rmtree(place)
    print(f"{len(numbers)} calls, exit codes {dict(sorted(codes.items()))}")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", help="SEED:NUMBER of one call, which is shown")
    given = parser.parse_args()
    numbers = [(given.seed, n) for n in range(given.count)]
    if given.case:
        seed, _, number = given.case.partition(":")
        numbers = [(int(seed), int(number))]
    started = time.monotonic()
    failures = fuzz(numbers, loud=bool(given.case))
    seconds = time.monotonic() - started
    print(f"{len(failures)} of {len(numbers)} calls wrong, {seconds:.0f} s, seed {given.seed}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
