"""Healthy trainings of all kinds, to convergence: does the watch stay silent, and did each really learn?

Run it with `python -m benchmarks.converge`; `--only lstm,gan` takes those whose names hold one of the words,
`--seed` draws others. Each trains small networks for some seconds as it is published (`trainings/`), under a
watch with its defaults, and must reach a figure that is written beside it: a training that does not learn
proves nothing by silence. A warning is a false alarm; notes are counted, too.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import unvanish
from benchmarks import record
from benchmarks.trainings import Learned, Training, load


@dataclass
class Run:
    """One training: what it learned, and what was said of it."""

    name: str
    learned: Learned
    seconds: float
    steps: int = 0
    looks: int = 0
    said: list[tuple[str, str, str]] = field(default_factory=list)  # severity, code, cause
    failure: str = ""

    @property
    def loud(self) -> list[str]:
        """The codes of its warnings."""
        return [code for severity, code, _ in self.said if severity != "note"]


def run(name: str, training: Training, seed: int) -> Run:
    """Train once under watch."""
    torch.manual_seed(seed)
    watches: list[Any] = []

    def watching(model: Any, optimizer: Any, loss: Any, **options: Any) -> Any:
        watches.append(unvanish.watch(model, optimizer, loss, on_finding="silent", **options))
        return watches[-1]

    began = time.thread_time()
    learned = training(watching)
    made = Run(name, learned, time.thread_time() - began)
    for watch in watches:
        made.steps, made.looks = made.steps + watch.steps, made.looks + watch.pace.looks
        made.said += [(f.severity, f.code, f.cause) for f in watch.diagnosis().walk()]
        made.failure = made.failure or watch.failure
    return made


def show(runs: list[Run], console: Console) -> dict[str, float]:
    """Print what was said and what was not learned; the figures for the record."""
    table = Table("training", "figure", "steps", "looks", "seconds", "warnings", "notes")
    for r in runs:
        figure = f"{r.learned.what} {r.learned.value:.3g}{'' if r.learned.reached else ' NOT REACHED'}"
        notes = [code for severity, code, _ in r.said if severity == "note"]
        numbers = (str(r.steps), str(r.looks), f"{r.seconds:.1f}")
        table.add_row(r.name, figure, *numbers, " ".join(r.loud), " ".join(notes))
    console.print(table)
    for r in runs:
        for severity, code, cause in r.said:
            console.print(f"{r.name}: {severity}[{code}] {cause}", markup=False, highlight=False)
        if r.failure:
            console.print(f"{r.name}: the watch failed: {r.failure}", markup=False)
    alarms = sum(bool(r.loud) for r in runs)
    codes = Counter(code for r in runs for code in r.loud)
    learned = sum(r.learned.reached for r in runs)
    console.print(f"with a warning: {alarms} of {len(runs)} {dict(codes)}; learned: {learned} of {len(runs)}")
    return {"trainings": len(runs), "with a warning": alarms, "learned": learned}


def main() -> int:
    """Train, print the table; 1 if something was said or not learned."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="words, with commas")
    parser.add_argument("--seed", type=int, default=0)
    record.add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    words = [word for word in options.only.split(",") if word] or [""]
    console, runs = Console(width=140), []
    for name, training in load().items():
        if any(word in name for word in words):
            runs.append(run(name, training, options.seed))
            r = runs[-1]
            told = f"{r.learned.what} {r.learned.value:.3g} {'ok' if r.learned.reached else 'NOT REACHED'}"
            print(name, f"{r.seconds:.1f} s", told, *r.loud, sep="  ", flush=True)
    figures = show(runs, console)
    record.append("converge", options, figures)
    return int(figures["with a warning"] > 0 or figures["learned"] < len(runs))


if __name__ == "__main__":
    raise SystemExit(main())
