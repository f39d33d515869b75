"""The run folder, `runs/<task>/<name>` or the next free one, with args.yaml and results.csv.

Notable:
- results.csv holds no times: the same run gives the same bytes, even if it was interrupted.
- It is rewritten whole at every epoch, so a kill leaves no half line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unvanish.store.files import write_text
from unvanish.store.schema import FILES
from unvanish.train.arguments import Arguments
from unvanish.train.errors import TrainError

WEIGHTS = "weights"
OLD = (*FILES, "weights/last.state.safetensors")  # patterns, of a run that is overwritten


def make_folder(arguments: Arguments, task: str, name: str) -> Path:
    """Make the folder of a new run; TrainError if it cannot be written."""
    root = Path(arguments.project) if arguments.project else Path("runs") / task
    wanted = root / (arguments.name or name)
    found = wanted
    number = 2
    while found.exists() and not arguments.exist_ok:
        found = wanted.with_name(f"{wanted.name}{number}")
        number += 1
    try:
        (found / WEIGHTS).mkdir(parents=True, exist_ok=True)
        for old in [path for pattern in OLD for path in found.glob(pattern)]:
            old.unlink(missing_ok=True)
        write_arguments(found, arguments)
    except OSError as error:
        raise TrainError(
            f"the run folder {found} cannot be made: {error.strerror or error}; give project="
        ) from error
    return found


def write_arguments(folder: Path, arguments: Arguments) -> Path:
    """Write args.yaml."""
    return write_text(folder / "args.yaml", yaml.safe_dump(arguments.plain(), sort_keys=False), "arguments")


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write results.csv: a row an epoch, the columns of all rows."""
    text = io.StringIO()
    names = list(dict.fromkeys(key for row in rows for key in row))
    table = csv.DictWriter(text, names, lineterminator="\n", restval="")
    table.writeheader()
    table.writerows({k: f"{v:.8g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return write_text(folder / "results.csv", text.getvalue(), "table")


def find_latest(project: str | None) -> Path:
    """The state of the run below the project's folder that was saved last; TrainError if there is none."""
    root = Path(project or "runs")
    found = sorted(root.rglob("last.state.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise TrainError(f"there is no run to resume below {root}; give resume= a run folder")
    return found[-1]


def find_state(place: str | Path) -> Path:
    """The state file of a run, by its folder or one of its checkpoints; TrainError if there is none."""
    path = Path(place)
    tries = (path / WEIGHTS / "last.state.safetensors", path / "last.state.safetensors")
    if path.is_dir():
        found = next((t for t in tries if t.is_file()), None)
        if found is None:
            raise TrainError(f"{path} holds no {WEIGHTS}/last.state.safetensors to resume from")
        return found
    if not path.is_file():
        raise TrainError(f"there is no run {path} to resume; give its folder, as in runs/classify/resnet20")
    state = path.with_name("last.state.safetensors")
    if path.name == "last.safetensors" and state.is_file():
        return state
    return path
