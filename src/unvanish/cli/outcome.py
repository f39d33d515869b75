"""Where the outcome of a command goes: stdout, files, the exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unvanish.cli.errors import CallError

if TYPE_CHECKING:
    from unvanish.clinic.config import Config
    from unvanish.core.diagnosis import Diagnosis


def exit_code(diagnosis: Diagnosis, settings: Config) -> int:
    """1 if a finding at or above `fail_on` (a warning, if it is not set) has no excuse, else 0."""
    level = settings.fail_on or "warning"
    return 0 if level == "never" else int(bool(diagnosis.counted(level)))  # type: ignore[arg-type]


def refuse_path(option: str, path: Path | None, *suffixes: str) -> None:
    """Refuse, before the work, a path that could not be written after it."""
    if path is not None and path.suffix not in suffixes:
        raise CallError(f"{option} {path} must end in {' or '.join(suffixes)}")
    if path is not None and not path.parent.is_dir():
        raise CallError(f"{option} {path}: there is no folder {path.parent}")


def is_alone(json: Any) -> bool:
    """Whether --json takes stdout for itself; CallError for what could not be written after the work."""
    if not isinstance(json, str | None):
        raise CallError(f"--json {json} names no file; write --json FILE.json, or --json - for stdout")
    refuse_path("--json", None if json in (None, "-") else Path(json), ".json")
    return json == "-"


def write_json(document: Mapping[str, Any], json: str | None) -> None:
    """Write a document where --json says; nothing without it."""
    from unvanish.reports.documents import write_document

    if json == "-":
        print(write_document(document), end="")
    elif json:
        _write_file(Path(json), write_document(document))


def _write_file(path: Path, text: str) -> None:
    """Write a file, and say so; CallError if it cannot be written."""
    from unvanish.store.files import write_text

    try:
        print(f"wrote {write_text(path, text)}", file=sys.stderr)
    except OSError as error:
        raise CallError(str(error)) from error


@contextlib.contextmanager
def free_stdout(alone: bool) -> Iterator[None]:
    """Send to stderr whatever prints, if stdout is for programs alone."""
    with contextlib.redirect_stdout(sys.stderr) if alone else contextlib.nullcontext():
        yield


@dataclass(frozen=True)
class Outlet:
    """A format of the report, and the file that it goes to; None: stdout, which is its alone."""

    form: str
    path: Path | None = None


def choose_outlets(
    html: Path | None,
    json: str | None,
    formats: Sequence[str] = (),
    output: str | None = None,
    svg: Path | None = None,
) -> tuple[Outlet, ...]:
    """Where the report goes, by the options; CallError for what could not be written after the work."""
    refuse_path("--html", html, ".html")
    alone = is_alone(json)
    refuse_path("--svg", svg, ".svg")
    found = [Outlet(path.suffix[1:], path) for path in (html, svg) if path is not None]
    found += [Outlet("json", None if alone else Path(json))] if json else []
    found += [_read_format(text) for text in formats]
    if output is not None:
        open_ended = [outlet for outlet in found if outlet.path is None]
        if len(open_ended) != 1:
            raise CallError("--output is the file of one --format; give one without a file of its own")
        if output != "-":
            path = _refuse_folder("--output", output)
            found = [Outlet(o.form, path) if o.path is None else o for o in found]
    printed = [outlet.form for outlet in found if outlet.path is None]
    if len(printed) > 1:
        raise CallError(f"{' and '.join(printed)} both go to stdout; write --format {printed[0]}=FILE")
    return tuple(found) if printed else (Outlet("text"), *found)


def _read_format(text: str) -> Outlet:
    """An outlet from NAME or NAME=FILE."""
    from unvanish.core.registry import suggest
    from unvanish.reports import FORMATS

    form, _, file = text.partition("=")
    if form not in FORMATS:
        near = suggest(form, FORMATS)
        raise CallError(f"--format {form!r} is not a format{near}; the formats are {', '.join(FORMATS)}")
    return Outlet(form, _refuse_folder("--format", file) if file not in ("", "-") else None)


def _refuse_folder(option: str, file: str) -> Path:
    """The path of a file; CallError if there is no folder for it."""
    path = Path(file)
    refuse_path(option, path, path.suffix)
    return path


@contextlib.contextmanager
def keep_stdout(outlets: Sequence[Outlet]) -> Iterator[None]:
    """Send what the user's own code prints to stderr, if stdout is for programs alone."""
    with free_stdout(any(outlet.path is None and outlet.form != "text" for outlet in outlets)):
        yield


def write_reports(
    diagnosis: Diagnosis, outlets: Sequence[Outlet], fail_on: str | None = None, *, verbose: bool = False
) -> None:
    """Print the report and write the files that the call asks for."""
    from unvanish.reports import print_report, write

    for outlet in outlets:
        if outlet.path is None and outlet.form == "text":
            print_report(diagnosis, verbose=verbose)
            continue
        text = write(diagnosis, outlet.form, fail_on or "warning")
        if outlet.path is None:
            print(text, end="")
        else:
            _write_file(outlet.path, text)
