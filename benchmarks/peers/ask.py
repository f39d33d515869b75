"""Runs in a tool's own environment: asks it of every case, or measures what it costs; writes JSON lines.

Notable: a case builds its model from seed 0 for every tool, so all see the same bits and the same losses. One
that takes more than a minute of CPU time is ended, and counts as a failure of the tool.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.adapter import Adapter, quiet
from benchmarks.peers.cases import Case, Trial, list_cases, make_trial
from benchmarks.peers.kinds import Answer

PATIENCE = 60  # CPU seconds a case
PAIRS = 14
BLOCK = 5  # steps a block
WARM = 1  # blocks that do not count


def load(name: str) -> type[Adapter]:
    """The adapter of this file name."""
    return importlib.import_module(f"benchmarks.peers.adapters.{name}").ADAPTER


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in the block when its CPU time is over."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def ask(kind: type[Adapter], case: Case, steps: int) -> Answer:
    """What the tool says of one case."""
    torch.manual_seed(0)
    trial = case.build()
    adapter, answer = kind(), Answer(case.name, case.group, trial.exam)
    began = time.process_time()
    torch.manual_seed(1)
    try:
        with quiet(), limit(PATIENCE):
            answer.said = adapter.examine(trial, steps)
    except Exception as error:
        answer.error = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    answer.seconds = time.process_time() - began
    answer.losses = tuple(adapter.losses)
    return answer


class Tower(torch.nn.Module):
    """The network whose steps are timed: six convolutions with batch normalisation, one linear layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        rows: list[torch.nn.Module] = []
        for i in range(6):
            rows += [
                torch.nn.Conv2d(width if i else 3, width, 3, padding=1),
                torch.nn.BatchNorm2d(width),
                torch.nn.ReLU(),
            ]
        self.body = torch.nn.Sequential(*rows)
        self.head = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def tower() -> Trial:
    """The training whose steps are timed."""
    torch.manual_seed(0)
    batch = torch.randn(32, 3, 16, 16), torch.randint(0, 10, (32,))
    return make_trial(Tower(), batch, torch.nn.CrossEntropyLoss())


def measure(kind: type[Adapter]) -> dict[str, Any]:
    """Time of a step with the tool over that of a plain one: medians over pairs of blocks, in turn."""
    sides = [(Adapter(), tower()), (kind(), tower())]
    ratios, plain, done = [], [], [0, 0]
    try:
        for adapter, trial in sides:
            adapter.begin(trial)
        for pair in range(PAIRS + WARM):
            spent = [0.0, 0.0]
            for i in (0, 1) if pair % 2 else (1, 0):
                adapter, trial = sides[i]
                began = time.process_time()
                for _ in range(BLOCK):
                    adapter.one_step(done[i], trial)
                    done[i] += 1
                spent[i] = (time.process_time() - began) / BLOCK
            if pair >= WARM:
                ratios.append(spent[1] / spent[0])
                plain.append(spent[0])
    finally:
        for adapter, _ in sides:
            adapter.end()
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "times": middle,
        "low": low,
        "high": high,
        "step_ms": 1000 * statistics.median(plain),
        "pairs": len(ratios),
    }


def measure_call(kind: type[Adapter]) -> dict[str, Any]:
    """Time of one call over that of a plain step, for tools that are one call."""
    plain, calls = [], []
    for _ in range(7):
        trial, adapter = tower(), Adapter()
        began = time.process_time()
        for step in range(BLOCK):
            adapter.one_step(step, trial)
        plain.append((time.process_time() - began) / BLOCK)
        trial = tower()
        began = time.process_time()
        kind().examine(trial, 1)
        calls.append(time.process_time() - began)
    times = statistics.median(calls[1:]) / statistics.median(plain[1:])
    return {"calls": times, "step_ms": 1000 * statistics.median(plain[1:]), "pairs": len(plain) - 1}


def main() -> int:
    """Ask the tool and write its answers; 3 if it cannot even be imported."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter")
    parser.add_argument("out", type=Path)
    for name, default in (("planted", 50), ("healthy", 25), ("every", 4), ("steps", 60)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kind = load(options.adapter)
    try:
        if kind.IMPORTS:
            importlib.import_module(kind.IMPORTS)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 3
    cases = list_cases(options.planted, options.healthy, options.every) if kind.SPEAKS else []
    out = options.out.resolve()
    kept = keep(out, cases, options.steps)
    os.chdir(tempfile.mkdtemp())  # whatever the tool writes
    with out.open("w") as file:
        if "" not in kept:
            with quiet():
                cost = measure_call(kind) if kind.USED == "one call" else measure(kind)
            kept[""] = json.dumps({"cost": cost, "steps": options.steps})
        for line in kept.values():
            file.write(line + "\n")
        file.flush()
        for case in cases:
            if f"{case.group}/{case.name}" not in kept:
                file.write(json.dumps(dataclasses.asdict(ask(kind, case, options.steps))) + "\n")
                file.flush()
    return 0


def keep(out: Path, cases: list[Case], steps: int) -> dict[str, str]:
    """Lines of an earlier run of as many steps that answer cases of this one; its cost under ""."""
    lines = out.read_text().splitlines() if out.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    if not rows or rows[0].get("steps") != steps:
        return {}
    wanted = {f"{case.group}/{case.name}" for case in cases}
    answered = {f"{row['group']}/{row['case']}": json.dumps(row) for row in rows[1:]}
    return {"": json.dumps(rows[0]), **{key: row for key, row in answered.items() if key in wanted}}


if __name__ == "__main__":
    raise SystemExit(main())
