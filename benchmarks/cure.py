"""How many curable sick networks `unvanish.cure` heals, proven, against what people do blindly.

Run it with `python -m benchmarks.cure --split dev --sick 110`. The networks are those of the diagnosis
benchmark; the test split is judged, never tuned on. "Cured": `check` finds nothing at or above a warning any
more. "Worse" is measured by trainings of the benchmark's own, before and after (`benchmarks/judge.py`).

`--out` gets a line for each network as soon as it is judged; a run that was stopped goes on from there.

Beside it, on the same networks: ReLU in place of every activation with He's weights; BatchNorm behind every
hidden layer; clipping to norm 1. Left out are faults that no change from outside can mend (`beyond`).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from benchmarks import nets, record
from benchmarks.examination import prepare
from benchmarks.judge import Side, worse
from benchmarks.nets import Sample, sample

BEYOND = {
    "GRF001": ("numpy", "list", "new tensor"),  # the numbers leave the graph in the user's own code
    "GRF004": ("norm of one", "softmax of one", "clamp"),  # nothing of the input is left behind it
    "NUM001": ("weight",),  # a stored NaN: restore a checkpoint
}


@dataclass
class Result:
    """What became of one network."""

    seed: int
    family: str
    fault: str
    cured: bool = False
    worse: bool = False
    remedies: tuple[str, ...] = ()
    seconds: float = math.nan
    reason: str = ""
    attempts: tuple[str, ...] = ()
    losses: tuple[float, float] = (math.nan, math.nan)  # the last ones, before and after
    trials: int = 0  # trainings of each side
    blind: dict[str, tuple[bool, bool]] = field(default_factory=dict)  # (cured, worse)


def beyond(example: Sample) -> bool:
    """Whether this fault cannot be mended from outside."""
    return example.description.get("mode") in BEYOND.get(str(example.fault), ())


def treat(job: tuple[int, bool]) -> Result | None:
    """Cure the network of a seed; None where it is beyond that."""
    import unvanish

    seed, others = job
    example = sample(seed)
    if beyond(example):
        return None
    result = Result(seed, example.family, str(example.fault))
    started = time.perf_counter()
    try:
        cured = unvanish.cure(example.model, example.batch, example.loss, optimizer=example.optimizer)
    except Exception as error:
        result.reason = f"{type(error).__name__}: {error}"[:300]
        return result
    result.seconds = time.perf_counter() - started
    result.cured = cured.success and bool(cured.prescription)
    result.remedies = tuple(dict.fromkeys(r.cure for r in cured.prescription.remedies))
    result.reason = cured.reason
    result.attempts = tuple(f"{'+'.join(a.cures)}: {a.result}" for a in cured.attempts)
    before = Side(example.model, example.batch, example.loss)
    after = Side(cured.model, example.batch, cured.loss)
    result.worse = bool(cured.prescription) and worse(before, after)
    result.losses, result.trials = (before.reached, after.reached), len(after.runs)
    for name, change in BLIND.items() if others else ():
        result.blind[name] = blindly(example, change, before)
    return result


def blindly(example: Sample, change: Callable[[nn.Module], Any], before: Side) -> tuple[bool, bool]:
    """(cured, worse) after a blind change."""
    import unvanish

    model = copy.deepcopy(example.model)
    try:
        around = change(model)
        found = unvanish.check(model, example.batch, example.loss, confirm=False)
        return found.healthy, worse(before, Side(model, example.batch, example.loss, around))
    except Exception:
        return False, True


@torch.no_grad()
def relu_and_he(model: nn.Module) -> None:
    """ReLU modules in place of all activation modules, He's weights, zero biases."""
    kinds = (
        nn.Sigmoid,
        nn.Tanh,
        nn.GELU,
        nn.SiLU,
        nn.ELU,
        nn.LeakyReLU,
        nn.Hardtanh,
        nn.Softsign,
        nn.Mish,
        nn.SELU,
    )
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kinds):
                setattr(module, name, nn.ReLU())
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def batch_norms(model: nn.Module) -> None:
    """BatchNorm behind every linear layer and convolution but the last."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    for name, layer in layers[:-1]:
        parent, _, leaf = name.rpartition(".")
        norm = (
            nn.BatchNorm2d(layer.out_channels)
            if isinstance(layer, nn.Conv2d)
            else nn.BatchNorm1d(layer.out_features)
        )
        setattr(model.get_submodule(parent), leaf, nn.Sequential(layer, norm))


def clipping(model: nn.Module) -> Callable[[list[Any]], Any]:
    """Clip to norm 1 before every step."""
    return lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, 1.0)


BLIND: dict[str, Callable[[nn.Module], Any]] = {
    "ReLU + He": relu_and_he,
    "BatchNorm": batch_norms,
    "clip to 1": clipping,
}


def run(seeds: Sequence[int], others: bool, jobs: int, out: Path | None) -> list[Result]:
    """Every result that is not beyond cure, in the order of the seeds; each is written down at once."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    rows = {row["seed"]: row for row in written(out) if row["seed"] in set(seeds)}
    todo = [(seed, others) for seed in seeds if seed not in rows]
    for row in track(judged(todo, jobs), "curing", total=len(todo), console=Console(stderr=True)):
        rows[row["seed"]] = row
        if out is not None:
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    kept = [rows[seed] for seed in seeds if "beyond" not in rows[seed]]
    return [Result(**row) for row in kept]


def judged(todo: Sequence[tuple[int, bool]], jobs: int) -> Iterator[dict[str, Any]]:
    """The rows of the results as they come, in any order."""
    if jobs <= 1 or len(todo) <= 1:
        prepare()
        yield from map(row, todo)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=prepare) as pool:
        yield from pool.imap_unordered(row, todo)


def row(job: tuple[int, bool]) -> dict[str, Any]:
    """What became of a seed, as plain data."""
    found = treat(job)
    return {"seed": job[0], "beyond": True} if found is None else asdict(found)


def written(out: Path | None) -> list[dict[str, Any]]:
    """The rows of a run that was stopped; a line that was cut off is left out."""
    if out is None or not out.exists():
        return []
    rows = []
    for line in out.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def share(part: int, whole: int) -> str:
    """A share in per cent."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def tables(results: list[Result]) -> list[Table]:
    """The totals, those of the blind treatments, and a row for each fault."""
    n = len(results)
    total = Table(
        "treatment", "cured", "made worse", "median s", "median remedies", title=f"{n} curable sick networks"
    )
    times = [r.seconds for r in results if r.cured] or [math.nan]
    counts = [len(r.remedies) for r in results if r.cured] or [0]
    cured, worse = sum(r.cured for r in results), sum(r.worse for r in results)
    total.add_row(
        "unvanish.cure",
        share(cured, n),
        share(worse, n),
        f"{statistics.median(times):.2f}",
        f"{statistics.median(counts):g}",
    )
    for name in results[0].blind if results else ():
        good, bad = sum(r.blind[name][0] for r in results), sum(r.blind[name][1] for r in results)
        total.add_row(name, share(good, n), share(bad, n), "", "")
    rows = Table("fault", "nets", "cured", "worse", "median s", "first choices", title="by fault")
    for code in sorted({r.fault for r in results}):
        own = [r for r in results if r.fault == code]
        liked = Counter("+".join(r.remedies) for r in own if r.cured).most_common(3)
        rows.add_row(
            code,
            str(len(own)),
            share(sum(r.cured for r in own), len(own)),
            share(sum(r.worse for r in own), len(own)),
            f"{statistics.median([r.seconds for r in own if r.seconds == r.seconds] or [math.nan]):.2f}",
            ", ".join(f"{name} {count}" for name, count in liked),
        )
    return [total, rows]


def figures(results: list[Result]) -> dict[str, record.Figure]:
    """The shares of the first table, and the median time of a cure."""
    n = max(1, len(results))
    times = [r.seconds for r in results if r.cured]
    found: dict[str, record.Figure] = {
        "networks": len(results),
        "cured": sum(r.cured for r in results) / n,
        "worse": sum(r.worse for r in results) / n,
        "median s": statistics.median(times) if times else None,
    }
    for name in results[0].blind if results else ():
        found[f"{name}: cured"] = sum(r.blind[name][0] for r in results) / n
        found[f"{name}: worse"] = sum(r.blind[name][1] for r in results) / n
    return found


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", choices=nets.SPLITS, default="dev")
    parser.add_argument("--sick", type=int, default=1000, metavar="N")
    parser.add_argument("--only", metavar="CODE", help="only this fault")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-blind", action="store_true", help="only unvanish")
    parser.add_argument("--show-failures", action="store_true")
    parser.add_argument("--out", type=Path, metavar="results.jsonl")
    record.add_option(parser)
    options = parser.parse_args()
    seeds = options.seed or list(nets.seeds(options.split, options.sick, 0))
    if options.only:
        start = nets.SPLITS[options.split] + nets.CODES.index(options.only)
        seeds = [start + len(nets.CODES) * i for i in range(options.sick)]
    results = run(seeds, not options.no_blind, options.jobs, options.out)
    console = Console()
    for table in tables(results):
        console.print(table)
    for r in results if options.show_failures else ():
        if not r.cured or r.worse:
            console.print(
                f"{r.seed} {r.fault} {r.family} cured={r.cured} worse={r.worse}",
                r.losses,
                r.remedies,
                r.reason,
                markup=False,
                highlight=False,
            )
            for line in r.attempts:
                console.print(f"      {line}", markup=False, highlight=False)
    record.append("cure", options, figures(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
