"""Where the outcome of a command goes: stdout, files, the exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unvanish.cli.errors import CallError

if TYPE_CHECKING:
    from unvanish.clinic.config import Config
    from unvanish.core.diagnosis import Diagnosis


def exit_code(diagnosis: Diagnosis, settings: Config) -> int:
    """1 if there is a finding at or above `fail_on` (a warning, if it is not set), else 0."""
    level = settings.fail_on or "warning"
    return 0 if level == "never" else int(bool(diagnosis.at_least(level)))  # type: ignore[arg-type]


def refuse_path(option: str, path: Path | None, *suffixes: str) -> None:
    """Refuse, before the work, a path that could not be written after it."""
    if path is not None and path.suffix not in suffixes:
        raise CallError(f"{option} {path} must end in {' or '.join(suffixes)}")
    if path is not None and not path.parent.is_dir():
        raise CallError(f"{option} {path}: there is no folder {path.parent}")


def refuse_reports(html: Path | None, json: str | None) -> None:
    """Refuse paths of reports that could not be written."""
    refuse_path("--html", html, ".html")
    refuse_path("--json", Path(json) if json and json != "-" else None, ".json")


@contextlib.contextmanager
def keep_stdout(for_json: bool) -> Iterator[None]:
    """Send what the user's own code prints to stderr, if stdout is for JSON alone."""
    with contextlib.redirect_stdout(sys.stderr) if for_json else contextlib.nullcontext():
        yield


def write_reports(diagnosis: Diagnosis, html: Path | None, json: str | None) -> None:
    """Print the report and write the files that the call asks for."""
    from unvanish.reports import print_report, render

    if json == "-":
        print(render(diagnosis, ".json"))
    else:
        print_report(diagnosis)
    try:
        for path in (html, json if json != "-" else None):
            if path is not None:
                print(f"wrote {diagnosis.save(path)}", file=sys.stderr)
    except OSError as error:
        raise CallError(str(error)) from error
