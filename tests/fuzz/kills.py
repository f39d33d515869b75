"""Kill trainings with SIGKILL at any moment, resume them, compare all they leave with a training that lived.

    python -m tests.fuzz.kills --count 200 --seed 0

Notable:
- A case kills one training one to three times: after a random time, or at a random file operation (opening,
  renaming, removing, as Python's audit events tell), which hits the writing of checkpoints and tables.
- After each kill the record must be readable, whole up to a step, and hold no step that was not made; at the
  end weights, table and record must be those of the training that lived, bit by bit.
- Processes are forked after the imports, so a training takes well under a second.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import mmap
import os
import random
import shutil
import signal
import sqlite3
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unvanish.reports.run.text import render
from unvanish.store import open_run
from unvanish.train import Loaders, Model

EPOCHS, SAMPLES, BATCH = 5, 64, 8
STEPS = EPOCHS * SAMPLES // BATCH
EVENTS = ("open", "os.rename", "os.remove", "sqlite3.connect")
PATIENCE = 240.0  # seconds for a training that takes one, on a machine that does much else
WRONG = 3  # exit code of a training that failed


class Net(nn.Module):
    """Dropout and a BatchNorm, so that every random state and buffer counts."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(0.2))
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def make_loaders() -> Loaders:
    made = torch.Generator().manual_seed(1)
    y = torch.randint(0, 4, (SAMPLES + 16,), generator=made)
    x = torch.randn(4, 8, generator=made)[y] + torch.randn(len(y), 8, generator=made)
    parts = TensorDataset(x[:SAMPLES], y[:SAMPLES]), TensorDataset(x[SAMPLES:], y[SAMPLES:])
    train = DataLoader(parts[0], BATCH, shuffle=True)
    return Loaders(train, DataLoader(parts[1], 16), facts={"classes": 4}, names=list("abcd"))


def train(folder: Path, made: mmap.mmap, settings: dict[str, Any]) -> None:
    """Train, or go on where the folder's state is; `made` counts the steps that were made."""
    torch.manual_seed(0)
    model = Model(Net())

    def count(trainer: Any) -> None:
        made[:8] = struct.pack("q", max(struct.unpack("q", made[:8])[0], trainer.record.step))

    model.add_callback("on_train_batch_end", count)
    if (folder / "weights" / "last.state.safetensors").exists():
        model.train(make_loaders(), resume=folder, verbose=False)
        return
    model.train(
        make_loaders(), project=str(folder.parent), name=folder.name, exist_ok=True, verbose=False,
        plots=False, epochs=EPOCHS, **settings,
    )  # fmt: skip


def die_at(folder: Path, number: int) -> None:
    """Kill this process at the `number`-th file operation below the folder."""
    left = [number]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS and str(folder) in str(args[:2]):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run(work: Callable[[], None], seconds: float | None = None) -> int:
    """Do the work in a child; kill it after some seconds. Its exit code, -9 if it was killed."""
    child = os.fork()
    if not child:
        code = WRONG
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGKILL if seconds is not None else WRONG


def warm_up(folder: Path) -> None:
    """Import here, once, what a training imports."""
    listed = folder.with_suffix(".txt")
    folder.parent.mkdir(exist_ok=True)

    def work() -> None:
        train(folder / "run", mmap.mmap(-1, 8), SETTINGS[0])
        listed.write_text("\n".join(sys.modules))

    run(work)
    for name in listed.read_text().split():
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


@dataclass
class Lived:
    """A training that was not killed: its folder, its seconds, how many file operations it made."""

    folder: Path
    seconds: float
    operations: int


def live(folder: Path, settings: dict[str, Any]) -> Lived:
    counts, made = mmap.mmap(-1, 8), mmap.mmap(-1, 8)

    def work() -> None:
        seen = [0]

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event in EVENTS and str(folder) in str(args[:2]):
                seen[0] += 1
                counts[:8] = struct.pack("q", seen[0])

        sys.addaudithook(hook)
        train(folder, made, settings)

    started = time.monotonic()
    if run(work):
        raise SystemExit("the training failed even without a kill")
    return Lived(folder, time.monotonic() - started, struct.unpack("q", counts[:8])[0])


# -- what must hold


def inspect(folder: Path, made: int) -> list[str]:
    """What is wrong with a folder whose training was killed after at most `made` steps."""
    if not (folder / "run.sqlite").exists():
        return []
    try:
        found = open_run(folder)
        steps = found.steps()
        render(found)
    except Exception as error:
        return [f"the record cannot be read: {type(error).__name__}: {error}"]
    numbers = steps["step"]
    wrong = []
    if not np.array_equal(numbers, np.arange(len(numbers))):
        wrong.append(f"the record has gaps: {numbers.astype(int).tolist()}")
    if len(numbers) > made + 1:  # a step counts as made a moment after its row was written
        wrong.append(f"the record has {len(numbers)} steps, {made} were made")
    table = folder / "results.csv"
    if table.exists() and len(table.read_text().splitlines()) - 1 > made * BATCH // SAMPLES:
        wrong.append("the table has epochs that were not made")
    return wrong


def compare(folder: Path, lived: Path) -> list[str]:
    """How a folder, resumed to its end, differs from that of the training that lived."""
    wrong = []
    for name in ("last", "best", "last.state"):
        mine, theirs = (load_file(place / "weights" / f"{name}.safetensors") for place in (folder, lived))
        if set(mine) != set(theirs):
            wrong.append(f"{name}: other tensors")
        elif differing := [k for k in mine if not torch.equal(mine[k], theirs[k])]:
            wrong.append(f"{name} differs in {differing[:3]}")
    if (folder / "results.csv").read_bytes() != (lived / "results.csv").read_bytes():
        wrong.append("results.csv differs")
    mine, theirs = open_run(folder).steps(), open_run(lived).steps()
    for column in ("step", "loss", "norm_log", "lr", "finite", "skipped"):
        near = 1e-5 if column == "norm_log" else 0.0  # norms are summed in parts that the clock chooses
        if len(mine[column]) != len(theirs[column]):
            wrong.append(f"the record has {len(mine[column])} steps: {mine['step'].astype(int).tolist()}")
            break
        if not np.allclose(mine[column], theirs[column], rtol=0, atol=near, equal_nan=True):
            wrong.append(f"the record's {column} differs: {mine[column].tolist()}")
    if not set(open_run(folder).sample_steps().tolist()) <= set(range(STEPS)):
        wrong.append("samples of steps that were not made")
    epochs = [int(row["step"]) for row in csv.DictReader((folder / "results.csv").open())]
    if epochs[-1] != len(mine["step"]):
        wrong.append("table and record end at different steps")
    with sqlite3.connect(folder / "run.sqlite") as connection:
        if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            wrong.append("the record is damaged")
    connection.close()
    return wrong


def kill_and_resume(
    case: random.Random, place: Path, lived: Lived, settings: dict[str, Any]
) -> tuple[int, list[str]]:
    """Kill a training one to three times and resume it to its end: the kills, and what is wrong."""
    folder, made, kills, wrong = place / "run", mmap.mmap(-1, 8), 0, []
    for _ in range(case.randint(1, 3)):
        if case.random() < 0.5:
            code = run(lambda: train(folder, made, settings), case.uniform(0.0, lived.seconds))
        else:
            number = case.randint(1, lived.operations)

            def work(number: int = number) -> None:
                die_at(folder, number)
                train(folder, made, settings)

            code = run(work)
        kills += code == -signal.SIGKILL
        if code == WRONG:
            return kills, [*wrong, "the training failed"]
        wrong += inspect(folder, struct.unpack("q", made[:8])[0])
        if (folder / "results.json").exists():
            break  # it had come to its end, so there is nothing to resume
    else:
        if run(lambda: train(folder, made, settings)):
            return kills, [*wrong, "it could not be resumed"]
        left = [p.name for p in folder.rglob("*") if any(w in p.name for w in ("partial", "lock", "-wal"))]
        wrong += [f"left behind: {name}" for name in left]
    return kills, wrong + compare(folder, lived.folder)


SETTINGS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "clip": 1.0},
    {"optimizer": "adamw", "clip": "zclip", "accumulate": 1, "label_smoothing": 0.1, "save_period": 2},
    {"optimizer": "adam", "ema": False, "cos_lr": True, "patience": 0},
]


def fuzz(count: int, seed: int = 0) -> tuple[int, dict[str, list[str]]]:
    """Kill `count` times at least; how often it was, and what was wrong, by the seed of the case."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DeprecationWarning)  # Python's own on forking
    kills, failures, number = 0, {}, 0
    with tempfile.TemporaryDirectory(prefix="kills-") as root:
        warm_up(Path(root) / "warm")
        lived = [live(Path(root) / f"lived{i}" / "run", s) for i, s in enumerate(SETTINGS)]
        while kills < count:
            case, which = random.Random(f"{seed}:{number}"), number % len(SETTINGS)
            place = Path(root) / f"case{number}"
            done, wrong = kill_and_resume(case, place, lived[which], SETTINGS[which])
            kills += done
            if wrong:
                failures[f"{seed}:{number}"] = wrong
                print(f"case {seed}:{number}: {'; '.join(wrong)}", flush=True)
            shutil.rmtree(place, ignore_errors=True)
            number += 1
    return kills, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    kills, failures = fuzz(given.count, given.seed)
    print(
        f"{kills} kills, {len(failures)} cases wrong, {time.monotonic() - started:.0f} s, seed {given.seed}"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
