"""`unvanish show RUN`: a watched training as text, page or picture."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unvanish.cli import options
from unvanish.cli.errors import CallError, stoppable
from unvanish.cli.outcome import is_alone, refuse_path, write_json
from unvanish.cli.runs import read_run, reading
from unvanish.cli.sinks import read_sinks

if TYPE_CHECKING:
    from unvanish.store import Run

ORDER = 90

Folder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, the run= of watch().")]
Page = Annotated[Path | None, typer.Option("--html", help="Write one self-contained page.")]
Picture = Annotated[
    Path | None, typer.Option("--png", help="Write the curves and the heat map (.png, .svg).")
]
Export = Annotated[
    Path | None,
    typer.Option("--export", help="Write every look of every site as a table: .csv, .jsonl or .parquet."),
]
Live = Annotated[bool, typer.Option("--live", help="Serve the page on this machine while the run grows.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of --live; 0 takes any free one.")]


@stoppable
def show(
    run: Folder,
    html: Page = None,
    png: Picture = None,
    svg: options.Svg = None,
    export: Export = None,
    live: Live = False,
    port: Port = 8765,
    json: options.Json = None,
    to: options.To = None,
    verbose: options.Verbose = False,
) -> None:
    """Show a watched training, also while it runs.

    \b
    unvanish show runs/mine
    unvanish show runs/mine --html mine.html --png mine.png
    unvanish show runs/mine --live
    unvanish show runs/mine --to wandb --to jsonl:mine.jsonl
    """  # noqa: D301 (the backspace keeps the lines apart)
    from unvanish.reports import print_report
    from unvanish.reports.documents.run import build as build_run

    opened = read_run(run)
    refuse_path("--html", html, ".html")
    refuse_path("--png", png, ".png", ".svg")
    refuse_path("--svg", svg, ".svg")
    refuse_path("--export", export, ".csv", ".jsonl", ".parquet")
    alone, sinks = is_alone(json), read_sinks(to)
    with reading(run):
        if not alone:
            print_report(opened, verbose=verbose)
        _write_picture(opened, svg)
        document = build_run(opened) if json else {}
    if json:
        write_json(document, json)
    if sinks:
        _retell(opened, sinks)
    if html is not None or png is not None or live:
        _write_pages(opened, html, png, live, port)
    if export is not None:
        _write_table(opened, export)


def _retell(run: Run, sinks: Mapping[str, Any]) -> None:
    """Tell sinks a run that was recorded."""
    from unvanish.cli.sinks import retell_run

    for name, sink in sinks.items():
        with reading(run.folder):
            count = retell_run(run, name, sink)
        print(f"told {count:,} steps to {name}", file=sys.stderr)


def _write_picture(run: Run, path: Path | None) -> None:
    try:
        if path is not None:
            print(f"wrote {run.save(path)}", file=sys.stderr)
    except OSError as error:
        raise CallError(f"--svg {path}: {error}") from error


def _write_table(run: Run, path: Path) -> None:
    from unvanish.store.export import export

    try:
        with reading(run.folder):
            made = export(run, path)
        print(f"wrote {made}", file=sys.stderr)
    except (ImportError, OSError) as error:
        raise CallError(f"--export {path}: {error}") from error


def _write_pages(run: Run, html: Path | None, png: Path | None, live: bool, port: int) -> None:
    from unvanish.reports.run import html as run_html

    try:
        for path in (html, png):
            if path is not None:
                with reading(run.folder):
                    made = run_html.save(run, path)
                print(f"wrote {made}", file=sys.stderr)
        if live:
            from unvanish.cli.live import serve

            serve(run, port)
    except (run_html.MissingLibrary, OSError) as error:
        raise CallError(str(error)) from error
