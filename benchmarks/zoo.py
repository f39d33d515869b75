"""Healthy published architectures at their published initialisation: `unvanish.check` must not warn of any.

Run it with `python -m benchmarks.zoo`, or `--only NAME`; `--timm` takes timm's architectures instead, where
timm can be imported. The exit status is 1 if there is a warning or a crash.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import unvanish
from benchmarks import record
from benchmarks.architectures import Builder, all_of_them, vision


@dataclass(frozen=True)
class Result:
    """What `check` said of one architecture."""

    name: str
    parameters: int
    seconds: float
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    why: str = ""


def examine(name: str, build: Builder, seed: int = 0, predict: bool = False) -> Result:
    """Build and check, or only predict; a crash counts as a warning named "crash"."""
    torch.manual_seed(seed)
    try:
        subject = build()
        count = sum(p.numel() for p in subject.model.parameters())
        started = time.perf_counter()
        if predict:
            found = unvanish.forecast(subject.model, batch=subject.batch)
        else:
            found = unvanish.check(subject.model, subject.batch, subject.loss)
    except Exception as error:
        return Result(name, 0, 0.0, ("crash",), (), f"{type(error).__name__}: {error}"[:300])
    bad = found.at_least("warning")
    notes = tuple(code for code in found.codes("note") if code not in found.codes())
    why = "; ".join(f"{f.cause} [{', '.join(f.sites[:3])}]" for f in bad)
    return Result(name, count, time.perf_counter() - started, found.codes(), notes, why)


def table(results: list[Result]) -> Table:
    """One row an architecture."""
    shown = Table(
        "architecture", "parameters", "seconds", "verdict", "notes", title="Published architectures"
    )
    for r in results:
        verdict = "[green]healthy[/]" if not r.warnings else f"[red]{', '.join(r.warnings)}[/]"
        shown.add_row(r.name, f"{r.parameters:,}", f"{r.seconds:.2f}", verdict, ", ".join(r.notes))
    return shown


def main() -> int:
    """Examine, print, and say whether all were found healthy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="architectures whose name contains this")
    parser.add_argument("--timm", action="store_true", help="those of timm, which must be installed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forecast", action="store_true", help="from theory, without a measurement")
    parser.add_argument("--out", type=Path, metavar="results.json")
    record.add_option(parser)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.timm and not vision.importable():
        parser.error("--timm needs timm, which is not installed here; pip install timm torchvision")
    named = vision.builders() if options.timm else all_of_them()
    chosen = {n: b for n, b in named.items() if not options.only or options.only.lower() in n.lower()}
    if not chosen:
        parser.error(f"no architecture is called {options.only!r}")
    console = Console()
    results = []
    for name, build in track(chosen.items(), "examining", console=Console(stderr=True)):
        results.append(examine(name, build, options.seed, options.forecast))
    console.print(table(results))
    for r in results:
        if r.why:
            console.print(f"{r.name}: {r.why}", markup=False)
    bad = [r for r in results if r.warnings]
    console.print(f"{len(results)} architectures, {len(bad)} with a warning")
    if options.out:
        options.out.write_text(json.dumps([asdict(r) for r in results], indent=1))
    record.append("zoo", options, {"architectures": len(results), "with a warning": len(bad)})
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
