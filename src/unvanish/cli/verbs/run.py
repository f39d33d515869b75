"""`unvanish run SCRIPT [ARGUMENTS]...`: a training script watched as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from zipfile import is_zipfile

import typer

from unvanish.cli import options
from unvanish.cli.errors import CallError, stoppable
from unvanish.cli.outcome import is_alone, write_json
from unvanish.cli.sinks import read_sinks

ORDER = 85
CONTEXT = {"allow_interspersed_args": False, "ignore_unknown_options": True}  # what follows is the script's

Script = Annotated[Path, typer.Argument(metavar="SCRIPT", help="A Python file that trains something.")]
Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="[ARGUMENTS]...", help="What the script is given.")
]
Folder = Annotated[Path | None, typer.Option("--run", help="Folder that the record is written to.")]
Budget = Annotated[float, typer.Option("--budget", help="Share of the run's time that looking may take.")]


@stoppable
def run(
    script: Script,
    arguments: Arguments = None,
    folder: Folder = None,
    budget: Budget = 0.01,
    to: options.To = None,
    json: options.Json = None,
) -> None:
    """Run a training script under watch, without a change to it; its exit code is the script's.

    Models are found when their optimizers step. Options of unvanish come before SCRIPT. At the end stands
    what `unvanish show` would say.

    \b
    unvanish run train.py --epochs 3
    unvanish run --run runs/mine train.py
    unvanish run --to wandb --json run.json train.py
    """  # noqa: D301 (the backspace keeps the lines apart)
    if not script.is_file():
        raise CallError(f"there is no script {script}")
    if is_zipfile(script):  # weights, mostly
        raise CallError(f"{script} is an archive, and no Python script; name the script that trains")
    from unvanish.cli.script import run_script
    from unvanish.clinic.arguments import require_number
    from unvanish.clinic.watch.lookout import Lookout

    require_number("budget", budget, "share")
    if is_alone(json):
        raise CallError("--json - would share stdout with the script; give a file, as in --json run.json")
    read_sinks(to)
    with Lookout(folder, budget=budget, to=to or None) as lookout:
        code = run_script(script, arguments or [])
    _report(lookout.watches, lookout.guard.failure)
    if json:
        _write_session(lookout, str(script), code, json)
    if code:
        raise typer.Exit(code)


def _write_session(lookout: Any, script: str, code: int, json: str) -> None:
    """What was seen of each model, as JSON."""
    from unvanish.reports.documents import session
    from unvanish.store import open_run

    runs = [w.sight() if w.store is None else open_run(w.store.folder) for w in lookout.watches]
    write_json(session.build(script, code, lookout.guard.failure, runs), json)


def _report(watches: list[Any], failure: str) -> None:
    """What was seen of each model."""
    from unvanish.reports import print_report
    from unvanish.store import open_run

    for watch in watches:
        if watch.store is None:
            print(watch)
        else:
            print_report(open_run(watch.store.folder))
    if failure:
        print(f"unvanish: the search for models failed: {failure}")
    elif not watches:
        print("unvanish: no torch optimizer took a step, so no training was seen")
