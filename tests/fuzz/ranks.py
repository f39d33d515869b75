"""Trainings of several ranks with and without a watch: each must end as it would alone, to the bit.

Run by hand: `python -m tests.fuzz.ranks` (all cases), `... plain fsdp2 mesh`, `--together` (the cases in one
set of processes), `--time 6` (pairs of longer runs, and the ratio of their times). Ranks are processes over
gloo on this machine, forked from one that has imported torch; whatever does not end in time is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp
import torch.distributed.tensor.parallel
from tests.fuzz import elastic  # its case
from tests.fuzz.rank_cases import CASES, Seat, net
from tests.fuzz.rank_checks import CHECKS, check_all
from torch import nn

import unvanish.clinic.watch  # so that it is there before the fork
from unvanish.store import open_run

__all__ = ["elastic", "main", "open_run", "run_case", "run_together"]
LIMIT, LONG = 60.0, {"elastic": 180.0}  # seconds of a case
ENDS_OTHERWISE = {"raise", "raise_one", "alone_together", "fsdp2_raise", "guard", "fsdp2_guard"}


@dataclass
class Ended:
    """How a case ended on every rank."""

    codes: list[int | None]  # None: it was killed after the time
    seconds: float
    outcomes: list[dict[str, Any] | None]
    logs: list[str] = field(default_factory=list)

    @property
    def losses(self) -> list[Any]:
        """The losses of every rank that came to its end."""
        return [None if o is None else o.get("losses") for o in self.outcomes]


def run_case(name: str, watched: bool, base: Path) -> Ended:
    """Run a case in processes of its own."""
    ranks, train = CASES[name]

    def work(rank: int) -> None:
        _begin(base, rank, ranks)
        seat = Seat(rank, ranks, base / "run", watched)
        try:
            _write(base / f"{rank}.json", train(seat))
        except BaseException:
            _write(base / f"{rank}.raised.json", seat.close())
            raise
        if name not in ("early", "uneven"):
            dist.barrier()
        dist.destroy_process_group()

    started = time.monotonic()
    codes = _fork(ranks, work, base, LONG.get(name, LIMIT))
    outcomes = [_read(base / f"{r}.json") or _read(base / f"{r}.raised.json") for r in range(ranks)]
    logs = [(base / f"{r}.log").read_text(errors="replace") for r in range(ranks)]
    return Ended(codes, time.monotonic() - started, outcomes, logs)


def run_together(names: Sequence[str], base: Path, limit: float = LIMIT) -> dict[str, list[Ended]]:
    """Run cases that end well, each alone and watched, in one set of processes."""
    (ranks,) = {CASES[name][0] for name in names}

    def work(rank: int) -> None:
        for name in names:
            for watched in (False, True):
                place = base / name / str(int(watched))
                place.mkdir(parents=True, exist_ok=True)
                _begin(place, rank, ranks)
                outcome = CASES[name][1](Seat(rank, ranks, place / "run", watched))
                _write(place / f"{rank}.json", outcome)
                dist.barrier()
                dist.destroy_process_group()

    codes = _fork(ranks, work, base, limit)
    found = {}
    for name in names:
        places = [base / name / str(w) for w in (0, 1)]
        found[name] = [Ended(codes, 0.0, [_read(p / f"{r}.json") for r in range(ranks)]) for p in places]
    return found


def judge(name: str, alone: Ended, watched: Ended, folder: Path) -> list[str]:
    """What a watch did that it must not do, and what it should have seen."""
    faults = check_all(name, alone, watched)
    if name not in ENDS_OTHERWISE:
        if alone.codes != watched.codes:
            faults.append(f"ended {alone.codes} alone and {watched.codes} watched: {watched.logs}"[:600])
        if alone.losses != watched.losses:
            faults.append("the losses differ")
    if None in watched.outcomes and not watched.logs:
        faults.append("a rank has not come to its end")
    if None in watched.codes:
        faults.append("a rank did not end")
    with contextlib.suppress(KeyError):
        faults += CHECKS[name](watched, folder)
    return faults


def _begin(base: Path, rank: int, ranks: int) -> None:
    store = dist.TCPStore("127.0.0.1", _port(base, rank), ranks, rank == 0, datetime.timedelta(seconds=20))
    limit = datetime.timedelta(seconds=20)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=limit)


def _port(base: Path, rank: int) -> int:
    """A free port, which the first rank chooses."""
    path = base / "port"
    if rank == 0:
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            _write(path, free.getsockname()[1])
    while not path.exists():
        time.sleep(0.002)
    return int(json.loads(path.read_text()))


def _fork(ranks: int, work: Callable[[int], None], base: Path, limit: float) -> list[int | None]:
    """Run `work` in `ranks` processes; their exit codes, None for those killed after `limit` seconds."""
    base.mkdir(parents=True, exist_ok=True)
    children = {_start(rank, work, base / f"{rank}.log"): rank for rank in range(ranks)}
    codes: list[int | None] = [None] * ranks
    end, left = time.monotonic() + limit, dict(children)
    while left and time.monotonic() < end:
        for child in list(left):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[left.pop(child)] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    for child in left:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return codes


def _start(rank: int, work: Callable[[int], None], log: Path) -> int:
    child = os.fork()
    if child:
        return child
    file, code = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 0
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        work(rank)
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # gloo's threads may abort an interpreter that ends in its own time


def _write(path: Path, value: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def try_case(name: str) -> tuple[list[str], float, float]:
    """Run a case twice and judge it; faults, seconds alone, seconds watched."""
    base = Path(tempfile.mkdtemp(prefix="ranks-"))
    try:
        alone, watched = (run_case(name, w, base / str(int(w))) for w in (False, True))
        return judge(name, alone, watched, base / "1" / "run"), alone.seconds, watched.seconds
    finally:
        shutil.rmtree(base, ignore_errors=True)


def try_together(names: Sequence[str]) -> int:
    """Run cases in one set of processes and judge each; 1 if any had a fault."""
    base, bad = Path(tempfile.mkdtemp(prefix="ranks-")), 0
    try:
        for name, (alone, watched) in run_together(names, base).items():
            faults = judge(name, alone, watched, base / name / "1" / "run")
            bad += bool(faults)
            print(f"{name}: {'; '.join(faults) or 'as without a watch'}")
        if bad:
            print("".join((base / f"{rank}.log").read_text(errors="replace")[-1500:] for rank in (0, 1)))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return int(bool(bad))


def measure_times(pairs: int, steps: int = 300) -> list[float]:
    """Ratios of the time of a watched training to that of an unwatched one, two ranks, run in turns."""

    def train(rank: int, place: Path) -> None:
        _begin(place, rank, 2)
        torch.manual_seed(0)
        model = nn.parallel.DistributedDataParallel(
            nn.Sequential(
                *[nn.Sequential(nn.Linear(512, 512), nn.ReLU()) for _ in range(6)], nn.Linear(512, 10)
            )
        )
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        x, y = torch.randn(256, 512), torch.randint(0, 10, (256,))
        times: dict[bool, list[float]] = {False: [], True: []}
        for pair in range(2 * pairs + 2):
            watched = pair % 2 == 1
            watch = (
                unvanish.watch(model, optimizer, run=place / f"run{pair}", on_finding="silent")
                if watched
                else None
            )
            dist.barrier()
            began = time.perf_counter()
            for _ in range(steps):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            times[watched].append(time.perf_counter() - began)
            if watch is not None:
                watch.close()
        ratios = [w / a for a, w in zip(times[False], times[True], strict=True)][1:]
        _write(place / f"{rank}.json", ratios)
        dist.barrier()
        dist.destroy_process_group()

    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        place = Path(folder)
        _fork(2, lambda rank: train(rank, place), place, 900)
        return list(_read(place / "0.json"))


def main() -> None:
    """Run what was asked for and say what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--time", type=int, default=0, metavar="PAIRS")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.time:
        ratios = measure_times(asked.time)
        every = ", ".join(f"{r:.3f}" for r in sorted(ratios))
        print(f"time watched / alone: median {statistics.median(ratios):.3f} of {every}")
        return
    if asked.together:
        sys.exit(try_together(asked.cases))
    bad = 0
    names = asked.cases or [name for name in CASES if name not in LONG]  # they take a minute and more
    for name in names:
        faults, alone, watched = try_case(name)
        bad += bool(faults)
        print(
            f"{name}: {'; '.join(faults) or 'as without a watch'} ({alone:.1f} s, {watched:.1f} s)",
            flush=True,
        )
    print(f"{bad} of {len(names)} cases did harm or saw less than they should")
    sys.exit(bool(bad))


if __name__ == "__main__":
    net()
    main()
