"""Hostile files of every kind that unvanish reads, each given to a command in a process of its own.

    python -m tests.fuzz.files --count 1000 --seed 0 [--kind weights] [--only 17]

Notable:
- A case fails if there is a traceback or "a bug in unvanish", if it computes for more than ten seconds, if
  code of the file or of a module in the current folder runs, if it takes a gigabyte, or if a file appears
  outside.
- Processes are forked after the imports, so most cases take a few hundredths of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from tests.fuzz import mutations as hurt
from tests.fuzz.hostile import KINDS, NET, TINY, Command
from torch import nn

from unvanish.core.diagnosis import Evidence, Finding
from unvanish.core.trace import Site
from unvanish.store import Store
from unvanish.train import Model
from unvanish.train.checkpoint.file import save

SECONDS, PATIENCE = 10.0, 40.0  # of computing; in all, as others may use the machine too
GIGABYTE = 1_000_000  # kilobytes
FAULTS = ("Traceback (most recent call last)", "this is a bug in unvanish")


@dataclass(frozen=True)
class Outcome:
    """How a case ended: the fault, or an empty text; seconds; kilobytes."""

    fault: str
    seconds: float
    kilobytes: int
    text: str = ""


# -- good files, made once


def prepare(folder: Path) -> None:
    """Good files of every kind."""
    rng = np.random.default_rng(0)
    (folder / "net.py").write_text(NET)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    facts = {"classes": 3, "channels": 3, "size": 16}
    torch.manual_seed(0)
    net = Model(dict(TINY)).build(**facts)
    about = {
        "format": 1,
        "name": "tiny",
        "task": "classify",
        "spec": TINY,
        "facts": facts,
        "names": ["a", "b", "c"],
        "preparation": {
            "input": "image",
            **facts,
            "mean": [0.5] * 3,
            "std": [0.2] * 3,
            "names": ["a", "b", "c"],
        },
        "data": "digits.yaml",
        "metrics": {"accuracy": 0.5},
        "best": 0.5,
        "epoch": 1,
    }
    save(folder / "w.safetensors", net.state_dict(), about)
    words = {
        "task": "sentiment",
        "layers": [
            {"module": "Embedding", "width": 8},
            {"module": "Recurrent", "width": 8},
            {"module": "Readout", "how": "last"},
        ],
    }
    told = {"classes": 2, "vocabulary": 6, "length": 5}
    text_about = {
        "name": "words",
        "task": "sentiment",
        "spec": words,
        "facts": told,
        "names": ["bad", "good"],
        "preparation": {
            "input": "text",
            "vocabulary": {"sort": "words", "lower": True, "entries": ["good", "bad"]},
        },
    }
    save(folder / "t.safetensors", Model(dict(words)).build(**told).state_dict(), text_about)
    torch.save(net.state_dict(), folder / "w.pt")
    torch.save((torch.randn(8, 4), torch.randint(0, 2, (8,))), folder / "batch.pt")
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    torch.save(
        {
            "step": 3,
            "code": "NUM001",
            "args": (torch.randn(8, 4),),
            "kwargs": {},
            "target": torch.randint(0, 2, (8,)),
            "loss": "CrossEntropyLoss",
            "weights": model.state_dict(),
            "random": {"cpu": torch.get_rng_state(), "cuda": []},
        },
        folder / "snapshot.pt",
    )
    for name in ("p.png", "p.jpg", "p.gif", "p.tif", "p.bmp", "p.webp", "p.ppm"):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / name)
    for part in ("train", "val"):
        (folder / "yolo" / "images" / part).mkdir(parents=True)
        (folder / "yolo" / "labels" / part).mkdir(parents=True)
        for i in range(3):
            shutil.copy(folder / "p.jpg", folder / "yolo" / "images" / part / f"{i}.jpg")
            (folder / "yolo" / "labels" / part / f"{i}.txt").write_text(
                "0 0.5 0.5 0.2 0.2\n1 0.3 0.3 0.1 0.4\n"
            )
            for name in "ab":
                (folder / "classes" / part / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / "p.png", folder / "classes" / part / name / f"{i}.png")
    store = Store(folder / "run", pause=0.01)
    axes = [{"name": "depth", "kind": "depth", "sites": [1, 0]}]
    store.describe(model="Net", axes=axes, overhead=0.01, looks=2)
    store.sites([Site("a", "linear"), Site("b", "relu")], ("backward_log", "update_log", "forward_rms"))
    store.steps({"step": i, "wall": float(i), "loss": 1.0, "finite": 1, "lr": 0.1} for i in range(9))
    for step in (0, 4, 8):
        store.sample(step, np.full((2, 3), -1.0))
        store.profile(step, "rnn", np.zeros(7))
    store.finding(
        1, 0, 2, Finding("ACT001", "saturated", "warning", "because", ("a",), (Evidence("x", 1.0),))
    )
    store.close()


# -- one case in a process of its own


def act(command: Command) -> int:
    """Run a command as the command line does; the exit code."""
    if callable(command):
        command()
        return 0
    from unvanish.cli import main

    sys.argv = ["unvanish", *command]
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2 if stop.code else 0
    return 0


def run_case(good: Path, kind: str, seed: str, work: Path) -> tuple[Outcome, Command]:
    """A case in a forked process, and how it ended."""
    folder = work / "here"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(good, folder)
    (folder / f"{hurt.CANARY}.py").write_text(f"open({str(folder / hurt.MARK)!r}, 'w').write('x')\n")
    os.chdir(folder)
    rng = random.Random(seed)
    command = KINDS[kind](rng)
    before = {p for p in work.iterdir()}
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_a_case(folder, command)
    status, used = None, None
    while status is None:
        found, code, usage = os.wait4(pid, os.WNOHANG)
        if found:
            status, used = code, usage
        elif time.monotonic() - begun > PATIENCE:
            os.kill(pid, signal.SIGKILL)
            _, status, used = os.wait4(pid, 0)
        else:
            time.sleep(0.01)
    seconds = time.monotonic() - begun
    text = (work / "out").read_text(errors="replace") if (work / "out").exists() else ""
    assert used is not None
    fault = _judge(status, used.ru_utime + used.ru_stime, seconds, used.ru_maxrss, text, folder)
    strangers = {p.name for p in work.iterdir()} - {p.name for p in before} - {"out", "cache"}
    fault = fault or (f"a file outside: {sorted(strangers)}" if strangers else "")
    os.chdir(good)
    return Outcome(fault, used.ru_utime + used.ru_stime, used.ru_maxrss, text[-1500:]), command


def _be_a_case(folder: Path, command: Command) -> None:
    """The forked process: the command, its output in a file; never returns."""
    code = 99
    try:
        handle = os.open(folder.parent / "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.environ["UNVANISH_CACHE"] = str(folder.parent / "cache")
        sys.path.insert(0, str(folder))  # as `python -m`, a notebook and pytest have it
        code = act(command)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _judge(status: int, computed: float, seconds: float, kilobytes: int, text: str, folder: Path) -> str:
    if (folder / hurt.MARK).exists():
        return "code ran"
    if computed > SECONDS or seconds > PATIENCE:
        return f"took {computed:.0f} s of computing, {seconds:.0f} s in all"
    if any(fault in text for fault in FAULTS):
        return "traceback"
    if os.WIFSIGNALED(status):
        return f"died of signal {os.WTERMSIG(status)}"
    if os.WEXITSTATUS(status) not in (0, 1, 2):
        return f"exit code {os.WEXITSTATUS(status)}"
    if kilobytes > GIGABYTE:
        return f"took {kilobytes / 1e6:.2f} GB"
    if os.WEXITSTATUS(status) == 2 and not text.strip():
        return "refused without a word"
    return ""


def fuzz(count: int, seed: int, kinds: list[str], only: int | None = None, verbose: bool = False) -> int:
    """Run cases and report; the number of those that failed."""
    import unvanish.reports.run.html
    import unvanish.train.session  # noqa: F401 (loaded before the forks)

    faults: list[str] = []
    tally: Counter[str] = Counter()
    slowest = largest = 0.0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        good, work = Path(top) / "good", Path(top) / "work"
        good.mkdir()
        prepare(good)
        for number in range(count) if only is None else [only]:
            kind = kinds[number % len(kinds)]
            outcome, command = run_case(good, kind, f"{seed}:{number}:{kind}", work)
            tally[kind] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.kilobytes)
            shown = " ".join(command) if isinstance(command, list) else kind
            if outcome.fault:
                faults.append(
                    f"--seed {seed} --only {number} --kind {','.join(kinds)}: {outcome.fault} ({shown})"
                )
                print(faults[-1], outcome.text if verbose else "", sep="\n", flush=True)
            elif verbose and only is not None:
                print(shown, outcome)
        os.chdir("/")
    counted = ", ".join(f"{number} {kind}" for kind, number in tally.items())
    print(
        f"{sum(tally.values())} hostile files ({counted}), seed {seed}: "
        f"{len(faults)} faults; slowest {slowest:.1f} s, largest {largest / 1e6:.2f} GB"
    )
    return len(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default=",".join(KINDS))
    parser.add_argument("--only", type=int)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(min(1, fuzz(given.count, given.seed, given.kind.split(","), given.only, given.verbose)))


if __name__ == "__main__":
    main()
