"""Does every network of the zoo learn? Each is trained for a while and compared with the best blind answer.

Run it with `python -m benchmarks.learns`; `--only adding,resnet20` takes those whose names hold one of the
words, `--seconds` is the time each one gets. "Blind" is the validation loss of the best answer that does not
look at the input: the entropy of the targets, or their variance. A network has learnt when its own loss is
under nine tenths of that; a sick ancestor need not.

rt-polarity, Multi30k and tiny Shakespeare are looked for in `$UNVANISH_DATA`; without them their networks are
skipped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import record
from unvanish.lab.data import DataError, open_data
from unvanish.lab.models import catalogue
from unvanish.lab.models.names import ZooEntry
from unvanish.lab.tokens import PAD
from unvanish.train import Model, TrainError

DATA = {
    "classify": "digits.yaml", "sentiment": "rt-polarity.yaml", "language": "tinyshakespeare.yaml",
    "translate": "multi30k.yaml", "adding": "adding.yaml", "copy": "copy.yaml",
    "digits": "sequential-digits.yaml",
}  # fmt: skip
IMAGE = {"classify": {"imgsz": 16, "augment": False, "optimizer": "adamw", "lr0": 1e-3}}
PATIENT = {"adding": 4.0, "digits": 3.0, "copy": 2.0, "translate": 5.0, "language": 8.0}  # times the seconds
TOO_DEEP = {"resnet1202"}  # hours on a processor
LEARNT = 0.9


@dataclass(frozen=True)
class Outcome:
    """What became of one network."""

    name: str
    sick: bool
    blind: float
    loss: float
    metrics: str
    steps: int
    seconds: float

    @property
    def learnt(self) -> bool:
        """Whether it beats what ignores the input."""
        return self.loss < LEARNT * self.blind


def kind_of(entry: ZooEntry) -> str:
    """The task, or which of the sequence tasks."""
    return entry.name.rpartition("-")[2] if entry.task == "sequence" else entry.task


def blind(targets: list[Tensor], task: str) -> float:
    """The loss of the best answer that does not look at the input."""
    if targets[0].is_floating_point():
        return float(torch.cat([t.flatten() for t in targets]).double().var(correction=0))
    ids = torch.cat([t.flatten() for t in targets])
    symbols = task in ("language", "translate") or (task == "sequence" and targets[0].ndim == 2)
    return entropy(ids[ids != PAD] if symbols else ids)


def entropy(ids: Tensor) -> float:
    """The entropy of the distribution of whole numbers, in nats."""
    share = torch.unique(ids, return_counts=True)[1].double() / len(ids)
    return float(-(share * share.log()).sum())


def run(entry: ZooEntry, seconds: float, seed: int) -> Outcome:
    """Train one network and tell."""
    kind = kind_of(entry)
    data = DATA[kind]
    arguments: dict[str, Any] = {"seed": seed, "verbose": False, "plots": False, **IMAGE.get(kind, {})}
    found = open_data(data, imgsz=arguments.get("imgsz"), seed=seed)
    assert found.val is not None
    alone = blind([y for _, y in found.val], entry.task)
    hours = seconds * PATIENT.get(kind, 1.0) / 3600
    with tempfile.TemporaryDirectory() as folder:
        results = Model(f"{entry.name}.yaml").train(data, project=folder, time=hours, **arguments)
    loss = min(float(row["val/loss"]) for row in results.rows)
    told = ", ".join(f"{k} {v:.3g}" for k, v in results.metrics.items() if k in ("accuracy", "mse", "bleu"))
    sick = "sick" in entry.description
    return Outcome(entry.name, sick, alone, loss, told, results.steps, results.seconds)


def main() -> int:
    """Train, print the table; 1 if a sound network has not learnt."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="words, with commas")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    record.add_option(parser)
    options = parser.parse_args()
    words = [word for word in options.only.split(",") if word] or [""]
    table = Table("network", "blind", "loss", "metrics", "steps", "seconds", "learnt")
    failed, figures = 0, {}
    for entry in catalogue():
        if entry.name in TOO_DEEP or not any(word in entry.name for word in words):
            continue
        try:
            o = run(entry, options.seconds, options.seed)
        except (DataError, TrainError) as error:
            print(f"{entry.name}: skipped, {error}", file=sys.stderr)
            continue
        said = "yes" if o.learnt else "no, sick" if o.sick else "NO"
        failed += said == "NO"
        figures[f"{o.name}: loss / blind"] = o.loss / o.blind
        row = (o.name, f"{o.blind:.3f}", f"{o.loss:.3f}", o.metrics, str(o.steps), f"{o.seconds:.0f}", said)
        print(*row, sep="  ", file=sys.stderr, flush=True)
        table.add_row(*row)
    Console(width=120).print(table)
    record.append("learns", options, {**figures, "not learnt, though sound": failed})
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
