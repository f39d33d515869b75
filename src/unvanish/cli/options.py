"""The options of the commands, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
        help="The batch, or several: the first is taken.",
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="SIZES", help="Random input of this shape (without the batch); once per input."
    ),
]
Dtype = Annotated[
    list[str] | None,
    typer.Option("--dtype", help="float, double, half, bfloat16 or long (ids) for --input, in its order."),
]
Loss = Annotated[
    str | None,
    typer.Option("--loss", metavar="LOSS", help="FILE.py:callable, or a name such as cross_entropy."),
]
Snapshot = Annotated[
    Path | None,
    typer.Option(
        "--snapshot", metavar="FILE.pt", help="Replay a step that a watch kept: weights, batch, loss."
    ),
]
Html = Annotated[Path | None, typer.Option("--html", metavar="PATH", help="Write the report as a page.")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="PATH|-", help="Write the report as JSON; - prints it alone.")
]
Select = Annotated[
    str | None, typer.Option("--select", metavar="CODES", help="Only these rules, as in ACT,INI001.")
]
Ignore = Annotated[str | None, typer.Option("--ignore", metavar="CODES", help="Not these rules.")]
FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on", metavar="LEVEL", help="What gives exit code 1: note, warning (default), error or never."
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Samples of a random batch.")]
NoConfirm = Annotated[bool, typer.Option("--no-confirm", help="Skip the experiments on copies.")]
Seed = Annotated[int, typer.Option("--seed", help="For the weights and everything random.")]
Power = Annotated[float, typer.Option("--power", min=1e-12, help="Mean square of the inputs, for theory.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="PATH.yaml", help="Write the prescription, for unvanish.apply."),
]
Allow = Annotated[
    str | None,
    typer.Option(
        "--allow", metavar="KIND", help="exact, or retrain; a trained model is changed exactly by default."
    ),
]
Budget = Annotated[
    float, typer.Option("--budget", min=1.0, metavar="SECONDS", help="When to take the best so far.")
]
Steps = Annotated[int, typer.Option("--steps", min=5, help="Of the training that proves it.")]
