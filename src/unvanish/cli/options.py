"""The options of the commands, with their help."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer


def refuse_nan(value: float) -> float:
    """The number; BadParameter if it is none, which no comparison with a limit finds."""
    if math.isnan(value):
        raise typer.BadParameter(f"{value} is not a number")
    return value


def require_rate(value: float | None) -> float | None:
    """A learning rate, or None; BadParameter if it is something else."""
    if value is not None and not 1e-30 <= value <= 1e30:
        raise typer.BadParameter(f"{value} is no learning rate, a number from 1e-30 to 1e30")
    return value


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="file.py:callable, package.module:callable, NAME.yaml, timm:NAME or hf:NAME."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FILE.py:callable|FILE.pt|DATA.yaml",
        help="A batch, or batches: the first one is taken.",
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Let a YAML import the layers that it names by a Python path."),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SIZES",
        help="Random input of this shape (without the batch); once for each input.",
    ),
]
Dtype = Annotated[
    list[str] | None,
    typer.Option("--dtype", help="Type of each --input: float, double, half, bfloat16 or long (ids)."),
]
Loss = Annotated[
    str | None,
    typer.Option("--loss", metavar="LOSS", help="FILE.py:callable, or a name such as cross_entropy."),
]
Snapshot = Annotated[
    Path | None,
    typer.Option(
        "--snapshot", metavar="FILE.pt", help="Replay a step that a watch saved: weights, batch, loss."
    ),
]
Html = Annotated[Path | None, typer.Option("--html", metavar="PATH", help="Write the report as a page.")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="PATH|-", help="Write the report as JSON; - prints it alone.")
]
To = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="SINK[:PLACE]",
        help="Where the record goes besides: tensorboard, wandb, mlflow, trackio, jsonl:FILE, opentelemetry.",
    ),
]
Select = Annotated[
    str | None, typer.Option("--select", metavar="CODES", help="Only these rules, as in ACT,INI001.")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="CODES|CODE@PATH=REASON",
        help="Not these rules; or found, and not counted at the modules of PATH (a.*), with the reason.",
    ),
]
Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME[=FILE]",
        help="text, json, html, sarif, github, junit or markdown; to a file, else alone to stdout.",
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", metavar="FILE|-", help="The file of the one --format without one.")
]
OldFindings = Annotated[
    Path | None,
    typer.Option("--baseline", metavar="FILE.json", help="Findings in this file are old and do not count."),
]
NewBaseline = Annotated[
    Path | None,
    typer.Option(
        "--write-baseline", metavar="FILE.json", help="Take what is found now for old, from now on."
    ),
]
FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on",
        metavar="LEVEL",
        help="Exit with 1 from this level on: note, warning (default), error or never.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, max=65536, help="Samples of a random batch.")]
Rate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="RATE",
        callback=require_rate,
        help="Try a step at this rate: how far is it from the largest that lowers the loss?",
    ),
]
Svg = Annotated[
    Path | None,
    typer.Option(
        "--svg", metavar="PATH.svg", help="Write a picture for a README: no script, light and dark."
    ),
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="List all: what passed, what did not apply, every number.")
]
NoConfirm = Annotated[bool, typer.Option("--no-confirm", help="Skip the experiments on copies.")]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the weights and of every random number."),
]
Power = Annotated[
    float,
    typer.Option("--power", min=1e-12, max=1e12, callback=refuse_nan, help="Mean square of the inputs."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="PATH.yaml", help="Write the prescription, for unvanish.apply."),
]
Allow = Annotated[
    str | None,
    typer.Option(
        "--allow",
        metavar="KIND",
        help="exact or retrain; by default a trained model gets only exact changes.",
    ),
]
Budget = Annotated[
    float,
    typer.Option(
        "--budget",
        min=1.0,
        max=1e6,
        callback=refuse_nan,
        metavar="SECONDS",
        help="Time for the search; then the best so far is taken.",
    ),
]
Steps = Annotated[
    int, typer.Option("--steps", min=5, max=10000, help="Steps of the training that proves the cure.")
]
