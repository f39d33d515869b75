"""Sick and sound: each architecture and the one that cured it, trained alike on the same data.

Run it with `python -m benchmarks.sick_and_sound`; `--only adding,sentiment` takes parts of it, `--list` names
them, `--recipes` prints the full trainings for a GPU, with the published figures. The trainings
here are cut down (a share of the data, few epochs) to what two cores do in minutes; all rows of a part get
the same data, seed and number of steps. Beside the metric stand what `unvanish.check` says of the network
before it is trained, and what the watch found on the way.

CIFAR-10, rt-polarity and Multi30k are looked for in `$UNVANISH_DATA`; a part whose data is missing is
skipped.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import record
from unvanish.core.diagnosis import Diagnosis
from unvanish.core.ledger import ledger
from unvanish.lab.data import DataError
from unvanish.reports.diagnosis.ledger_text import draw_ledger
from unvanish.train import Model, TrainError


@dataclass(frozen=True)
class Row:
    """One training: a network with changes to its YAML, arguments here, and the recipe of the full run."""

    label: str
    model: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)  # of this row alone
    published: str = ""


@dataclass(frozen=True)
class Part:
    """Rows that are trained on the same data: what for, the arguments here, those of the full run."""

    title: str
    data: str
    rows: tuple[Row, ...]
    here: Mapping[str, Any]
    full: Mapping[str, Any]
    ledger: bool = False  # print what `check` says in full


CNN_HERE = {"fraction": 0.1, "epochs": 6, "batch": 64, "augment": False, "optimizer": "adamw", "lr0": 1e-3}
CNN_FULL = {"epochs": 60, "batch": 128, "optimizer": "adamw", "lr0": 1e-3, "cos_lr": True}
HE_2016 = {"epochs": 182, "batch": 128, "optimizer": "sgd", "lr0": 0.1, "momentum": 0.9, "nesterov": False,
           "weight_decay": 1e-4, "schedule": "step", "warmup_epochs": 1, "clip": 0, "ema": False}  # fmt: skip
PARTS = {
    "depth": Part(
        "plain and residual, 56 layers, CIFAR-10",
        "cifar10.yaml",
        (
            Row("plain-56", "plain56.yaml", published="worse than plain-20 (He et al. 2016, figure 6)"),
            Row("resnet-56", "resnet56.yaml", published="93.03 % (He et al. 2016, table 6)"),
        ),
        {"fraction": 0.1, "epochs": 6, "batch": 64, "optimizer": "sgd", "lr0": 0.05},
        HE_2016,
    ),
    "activations": Part(
        "sigmoid, ReLU, GELU in 13 plain layers, CIFAR-10",
        "cifar10.yaml",
        tuple(Row(f"{a}-cnn", f"{a}-cnn.yaml") for a in ("sigmoid", "relu", "gelu")),
        CNN_HERE,
        CNN_FULL,
    ),
    "initialisation": Part(
        "Xavier and He in 13 plain ReLU layers, CIFAR-10",
        "cifar10.yaml",
        tuple(Row(f"init: {i}", "relu-cnn.yaml", {"init": i}) for i in ("torch", "xavier", "he", "critical")),
        CNN_HERE,
        CNN_FULL,
    ),
    "batchnorm": Part(
        "with and without BatchNorm, 13 sigmoid or ReLU layers at PyTorch's own start, CIFAR-10",
        "cifar10.yaml",
        tuple(
            Row(f"{a}, norm: {n}", f"{a}-cnn.yaml", {"norm": n, "init": "torch"})
            for a in ("sigmoid", "relu")
            for n in ("none", "batch")
        ),
        CNN_HERE,
        CNN_FULL,
    ),
    "adding": Part(
        "RNN, LSTM, GRU on the adding problem over 200 steps (0.167: always the mean)",
        "adding.yaml",
        tuple(Row(f"{c}-adding", f"{c}-adding.yaml") for c in ("rnn", "lstm", "gru")),
        {"epochs": 8, "batch": 64},
        {"epochs": 40, "batch": 64},
    ),
    "sentiment": Part(
        "RNN, LSTM, GRU on rt-polarity, from scratch",
        "rt-polarity.yaml",
        tuple(Row(f"{c}-sentiment", f"{c}-sentiment.yaml") for c in ("rnn", "lstm", "gru")),
        {},
        {},
    ),
    "translation": Part(
        "RNN, GRU with attention, transformer on Multi30k, German to English",
        "multi30k.yaml",
        (
            Row("rnn-translate", "rnn-translate.yaml"),
            Row(
                "gru-attention-translate",
                "gru-attention-translate.yaml",
                published="BLEU 28.1, English to German",
            ),
            Row(
                "transformer-translate",
                "transformer-translate.yaml",
                published="BLEU 36.5, English to German",
            ),
        ),
        {"fraction": 0.2, "epochs": 3, "batch": 64},
        {"epochs": 30, "batch": 128},
    ),
    "resnet1202": Part(
        "resnet-1202: three steps and its ledger, CIFAR-10",
        "cifar10.yaml",
        (Row("resnet-1202", "resnet1202.yaml", published="92.07 % (He et al. 2016, table 6)"),),
        {"fraction": 0.0005, "epochs": 1, "batch": 8, "val": False, "augment": False},
        HE_2016,
        ledger=True,
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a row."""

    label: str
    before: str
    decades: float
    metric: str
    watch: str
    steps: int
    minutes: float


def run(part: Part, row: Row, seed: int) -> Outcome:
    """Check the network, train it, and tell."""
    started = time.perf_counter()
    arguments = {"seed": seed, "verbose": False, "plots": False, **part.here, **row.more}
    diagnosis = Model(row.model, **row.changes).check(part.data, **arguments)
    if part.ledger:
        print(diagnosis, *(line.plain for line in draw_ledger(ledger(diagnosis.trace), 80)), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        results = Model(row.model, **row.changes).train(part.data, project=folder, **arguments)
    told = [
        f"{k} {v:.3g}" for k, v in results.metrics.items() if k in ("accuracy", "mse", "perplexity", "bleu")
    ]
    found = ", ".join(f.code for f in results.findings if f.severity != "note")
    minutes = (time.perf_counter() - started) / 60
    metric = ", ".join(told) or f"loss {results.loss:.3g}"
    return Outcome(
        row.label, first(diagnosis), total(diagnosis), metric, found or "-", results.steps, minutes
    )


def first(diagnosis: Diagnosis) -> str:
    """The codes of what `check` found, worst first."""
    return ", ".join(diagnosis.codes()) or "healthy"


def total(diagnosis: Diagnosis) -> float:
    """The ledger's total: decades from the loss to the input."""
    found = ledger(diagnosis.trace)
    return found.total if found is not None else math.nan


def shown(console: Console, part: Part, seed: int) -> dict[str, record.Figure]:
    """Train a part's rows and print its table, or why there is none; returns the figures."""
    figures: dict[str, record.Figure] = {}
    table = Table(title=part.title, title_justify="left")
    for head in ("network", "check says", "decades", "after training", "watch found", "steps", "minutes"):
        table.add_column(head, justify="right" if head in ("decades", "steps", "minutes") else "left")
    for row in part.rows:
        try:
            o = run(part, row, seed)
        except (DataError, TrainError) as error:
            console.print(f"{row.label}: skipped, {error}", markup=False)
            continue
        table.add_row(
            o.label, o.before, f"{o.decades:+.1f}", o.metric, o.watch, str(o.steps), f"{o.minutes:.1f}"
        )
        console.print(f"{row.label}: {o.metric}", markup=False)
        name = f"{part.title}; {row.label}"
        figures |= {f"{name}: decades": o.decades, f"{name}: after": o.metric, f"{name}: check": o.before}
    if table.row_count:
        console.print(table)
    return figures


def recipe(part: Part, row: Row) -> str:
    """The full training as a command."""
    words = {"model": row.model, "data": part.data, **row.changes, **part.full}
    command = "unvanish train " + " ".join(
        f"{k}={str(v).lower() if v in (True, False) else v}" for k, v in words.items()
    )
    return f"{command}    # published: {row.published}" if row.published else command


def main() -> None:
    """Print the tables, or the recipes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help=f"parts by name, with commas: {', '.join(PARTS)}")
    parser.add_argument("--list", action="store_true", help="name the parts")
    parser.add_argument("--recipes", action="store_true", help="print the full trainings for a GPU")
    parser.add_argument("--seed", type=int, default=0)
    record.add_option(parser)
    arguments = parser.parse_args()
    wanted = [name for name in arguments.only.split(",") if name] or list(PARTS)
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    console, figures = Console(width=150), {}
    for name in wanted:
        part = PARTS[name]
        if arguments.list:
            console.print(f"{name}: {part.title}", markup=False)
        elif arguments.recipes:
            console.print(
                f"{part.title}\n" + "\n".join(f"  {recipe(part, row)}" for row in part.rows), soft_wrap=True
            )
        else:
            figures |= shown(console, part, arguments.seed)
    if not (arguments.list or arguments.recipes):
        console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, seed {arguments.seed}")
        record.append("sick_and_sound", arguments, figures)


if __name__ == "__main__":
    main()
