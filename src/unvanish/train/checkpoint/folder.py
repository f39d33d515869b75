"""The run folder, `runs/<task>/<name>` or the next free one, with args.yaml and results.csv.

Notable:
- results.csv holds no times: the same run gives the same bytes, even if it was interrupted.
- It is rewritten whole at every epoch, so a kill leaves no half line.
- A training claims its folder; a second one there is refused, and what a killed one left half-written goes.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unvanish.core.names import as_file_name
from unvanish.store.files import write_text
from unvanish.store.lock import FolderLock
from unvanish.store.schema import FILES
from unvanish.train.arguments import Arguments
from unvanish.train.errors import TrainError

WEIGHTS = "weights"
CLAIM = "train.lock"
END = "results.json"  # written when a training has ended
OLD = (
    "weights/last.state.safetensors", "weights/last.*", "weights/best.*", "weights/epoch[0-9]*",
    *FILES, "results.csv", END,
)  # fmt: skip  # of a run that is overwritten; first what it would be resumed from


def make_folder(
    arguments: Arguments, task: str, name: str, held: contextlib.ExitStack, undo: contextlib.ExitStack
) -> Path:
    """Make the folder of a new run and claim it until `held` ends; TrainError if it cannot be written.

    `undo`: takes a folder that was not there before away again, if the training cannot begin.
    """
    root = Path(arguments.project) if arguments.project else Path("runs") / task
    wanted = root / (arguments.name or as_file_name(name))
    try:
        found = wanted if arguments.exist_ok else _make_own(wanted, undo)
        (found / WEIGHTS).mkdir(parents=True, exist_ok=True)
        held.enter_context(claim(found))
        for old in [path for pattern in OLD for path in found.glob(pattern)]:
            old.unlink(missing_ok=True)
        write_arguments(found, arguments)
    except (OSError, ValueError) as error:
        if isinstance(error, TrainError):
            raise
        raise TrainError(
            f"the run folder {wanted} cannot be made: {error}; give project= or name="
        ) from error
    return found


def _make_own(wanted: Path, undo: contextlib.ExitStack) -> Path:
    """As `make_next`; `undo` takes away what was not there."""
    for above in (wanted.parent.parent, wanted.parent):
        if not above.exists():
            undo.callback(_remove_empty, above)
    found = make_next(wanted)
    undo.callback(shutil.rmtree, found, ignore_errors=True)
    return found


def make_next(wanted: Path) -> Path:
    """Make the folder, or the next one that is free; two that begin at once get two."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        found = wanted if number == 1 else wanted.with_name(f"{wanted.name}{number}")
        with contextlib.suppress(FileExistsError):
            found.mkdir()
            break
    return found


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Within the block no other training may use the folder; TrainError says who does."""
    try:
        lock = FolderLock(folder / CLAIM)
    except OSError as error:
        raise TrainError(f"{folder} cannot be trained in: {error}; give another name=") from error
    try:
        for left in [*folder.glob("*.partial*"), *(folder / WEIGHTS).glob("*.partial*")]:
            left.unlink(missing_ok=True)  # of a training that was killed
        yield
    finally:
        lock.release()


def write_arguments(folder: Path, arguments: Arguments) -> Path:
    """Write args.yaml."""
    return write_text(folder / "args.yaml", yaml.safe_dump(arguments.plain(), sort_keys=False), "arguments")


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write results.csv: a row an epoch, the columns of all rows; without rows there is no such file."""
    if not rows:
        (folder / "results.csv").unlink(missing_ok=True)
        return folder / "results.csv"
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
            raise TrainError(
                f"{path} holds no {WEIGHTS}/last.state.safetensors to resume from; if its training never"
                " began, start it again with exist_ok=true"
            )
        return found
    if not path.is_file():
        raise TrainError(f"there is no run {path} to resume; give its folder, as in runs/classify/resnet20")
    state = path.with_name("last.state.safetensors")
    if path.name == "last.safetensors" and state.is_file():
        return state
    return path
