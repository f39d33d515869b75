"""A run's looks as one long table for other tools: CSV, JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unvanish.core.names import show, show_cell
from unvanish.store.files import write_whole
from unvanish.store.reader import Run


def list_rows(run: Run) -> Iterator[dict[str, Any]]:
    """One row for each site at each look: step, site, kind, role, statistics."""
    trace = run.trace()
    for look, step in enumerate(trace.facts["steps"]):
        for i, site in enumerate(trace.sites):
            values = trace.values[look, i]
            if np.isnan(values).all():
                continue
            row: dict[str, Any] = {"step": step, "site": show(site.label), "kind": show(site.kind)}
            row["role"] = site.role
            pairs = zip(trace.statistics, values, strict=True)
            yield row | {name: None if math.isnan(v) else float(v) for name, v in pairs}


def export(run: Run, path: Path) -> Path:
    """Write the table whole or not at all; ImportError if pyarrow, which Parquet needs, is missing."""
    write = {".csv": _write_csv, ".jsonl": _write_lines, ".parquet": _write_parquet}[path.suffix]
    with write_whole(path, "table") as partial:
        write(run, partial)
    return path


def _write_csv(run: Run, path: Path) -> None:
    columns = ["step", "site", "kind", "role", *run.facts().get("statistics", [])]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows({key: show_cell(value) for key, value in row.items()} for row in list_rows(run))


def _write_lines(run: Run, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in list_rows(run):
            known = {key: value for key, value in row.items() if value is not None}
            file.write(json.dumps({key: _plain(value) for key, value in known.items()}) + "\n")


def _plain(value: Any) -> Any:
    """The value, or its name if it is a float that JSON cannot hold."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write_parquet(run: Run, path: Path) -> None:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install pyarrow; .csv and .jsonl do not") from error
    names = run.facts().get("statistics", [])
    text = [arrow.field(n, arrow.string()) for n in ("site", "kind", "role")]
    schema = arrow.schema(
        [arrow.field("step", arrow.int64()), *text, *(arrow.field(n, arrow.float32()) for n in names)]
    )
    parquet.write_table(arrow.Table.from_pylist(list(list_rows(run)), schema), path)
