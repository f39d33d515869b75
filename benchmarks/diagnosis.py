"""How often `unvanish.check` names the planted fault, and alarms on a healthy net, against its peers.

Run it with `python -m benchmarks.diagnosis --split dev --sick 100 --healthy 50`. The test split is judged,
never tuned on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from benchmarks import nets, record
from benchmarks.examination import Questions, Verdict, examine, prepare
from benchmarks.scoreboard import failures, figures, sheets

SICK, HEALTHY = 1000, 500


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", choices=nets.SPLITS, default="dev")
    parser.add_argument("--sick", type=int, default=SICK, metavar="N")
    parser.add_argument("--healthy", type=int, default=HEALTHY, metavar="N")
    parser.add_argument("--count", type=int, metavar="N", help="shrink both: N sick and N/2 healthy")
    parser.add_argument("--only", metavar="CODE", help="only this fault (N nets of it), or `healthy`")
    parser.add_argument("--seed", type=int, action="append", help="exactly these seeds")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--scales", action="store_true", help="check again with the loss times 1e6 and 1e-6")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-ours", action="store_true", help="only the generator and the peers")
    parser.add_argument("--show-failures", action="store_true")
    parser.add_argument("--out", type=Path, metavar="results.json")
    parser.add_argument("--markdown", type=Path, metavar="results.md")
    record.add_option(parser)
    return parser.parse_args(argv)


def chosen(options: argparse.Namespace) -> tuple[int, ...]:
    """The seeds these options ask for; ValueError names an unknown code."""
    if options.seed:
        return tuple(options.seed)
    sick, healthy = (options.count, options.count // 2) if options.count else (options.sick, options.healthy)
    if options.only is None:
        return nets.seeds(options.split, sick, healthy)
    if options.only == "healthy":
        return nets.seeds(options.split, 0, healthy)
    if options.only not in nets.CODES:
        raise ValueError(f"no fault {options.only!r}; there are healthy, {', '.join(nets.CODES)}")
    start = nets.SPLITS[options.split] + nets.CODES.index(options.only)
    return tuple(start + len(nets.CODES) * i for i in range(sick))


def run(seeds: Sequence[int], questions: Questions, jobs: int) -> list[Verdict]:
    """Every verdict, in the order of the seeds, by `jobs` processes."""
    ask = partial(examine, questions=questions)
    if jobs <= 1:
        prepare()
        return list(progress(map(ask, seeds), len(seeds)))
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # read when the new processes import torch
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=prepare) as pool:
        found = list(progress(pool.imap_unordered(ask, seeds, chunksize=2), len(seeds)))
    return sorted(found, key=lambda verdict: seeds.index(verdict.seed))


def progress(verdicts: Iterable[Verdict], total: int) -> Iterable[Verdict]:
    """The same, with a bar on standard error."""
    return track(verdicts, "examining", total=total, console=Console(stderr=True))


def facts(options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """How the run was made."""
    import unvanish

    return {
        "split": options.split,
        "seconds": round(seconds, 1),
        "jobs": options.jobs,
        "unvanish": getattr(unvanish, "__version__", ""),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its tables; 2 if the call was wrong."""
    options, console = arguments(argv), Console()
    try:
        seeds = chosen(options)
    except ValueError as error:
        console.print(f"[red]{error}[/red]")
        return 2
    started = time.perf_counter()
    questions = Questions(not options.no_ours, options.scales, not options.no_peers)
    verdicts = run(seeds, questions, options.jobs)
    about = facts(options, time.perf_counter() - started)
    tables = sheets(verdicts)
    for table in tables:
        console.print(table.rich())
    for line in failures(verdicts) if options.show_failures else ():
        console.print(line, markup=False, highlight=False)
    if options.out:
        options.out.write_text(json.dumps({"run": about, "verdicts": [v.row() for v in verdicts]}, indent=1))
    if options.markdown:
        told = ", ".join(f"{k} {v}" for k, v in about.items())
        options.markdown.write_text(f"{told}\n\n" + "\n".join(t.markdown() for t in tables))
    record.append("diagnosis", options, figures(verdicts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
