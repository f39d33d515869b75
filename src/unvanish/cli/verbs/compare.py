"""`unvanish compare A B`: two watched trainings side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unvanish.cli.errors import stoppable
from unvanish.cli.runs import read_run, reading

ORDER = 100


@stoppable
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A run's folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another run's folder.")],
) -> None:
    """Compare two runs side by side: loss, gradient, flow, findings.

    \b
    unvanish compare runs/plain runs/resnet
    """  # noqa: D301 (the backspace keeps the lines apart)
    from unvanish.reports.run.compare import compare as compare_runs

    with reading(first, second):
        print(compare_runs(read_run(first), read_run(second)))
