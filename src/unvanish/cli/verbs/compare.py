"""`unvanish compare A B`: two watched trainings side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unvanish.cli import options
from unvanish.cli.errors import stoppable
from unvanish.cli.outcome import is_alone, write_json
from unvanish.cli.runs import read_run, reading

ORDER = 100


@stoppable
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A run's folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another run's folder.")],
    json: options.Json = None,
) -> None:
    """Compare two runs side by side: loss, gradient, flow, findings.

    \b
    unvanish compare runs/plain runs/resnet
    """  # noqa: D301 (the backspace keeps the lines apart)
    from unvanish.reports.documents import comparison
    from unvanish.reports.run.compare import compare as compare_runs

    alone = is_alone(json)
    with reading(first, second):
        runs = read_run(first), read_run(second)
        if not alone:
            print(compare_runs(*runs))
        document = comparison.build(*runs) if json else {}
    if json:
        write_json(document, json)
