"""`unvanish show RUN` and `unvanish compare A B`: a watched training as text, page or picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unvanish.cli.errors import CallError, stoppable

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
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Of --live; 0 takes any free one.")]


@stoppable
def show(
    run: Folder,
    html: Page = None,
    png: Picture = None,
    export: Export = None,
    live: Live = False,
    port: Port = 8765,
) -> None:
    """Tell the story of a watched training, also while it runs.

    \b
    unvanish show runs/mine
    unvanish show runs/mine --html mine.html --png mine.png
    unvanish show runs/mine --live
    """  # noqa: D301 (the backspace keeps the lines apart)
    from unvanish.reports.run import text as run_text

    found = _opened(run)
    for option, path in (("--html", html), ("--png", png), ("--export", export)):
        _refuse(option, path)
    print(run_text.story(found))
    if html is not None or png is not None or live:
        _pages(found, html, png, live, port)
    if export is not None:
        from unvanish.store.export import export as written

        try:
            print(f"wrote {written(found, export)}", file=sys.stderr)
        except (ImportError, OSError) as error:
            raise CallError(f"--export {export}: {error}") from error


@stoppable
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A run's folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another run's folder.")],
) -> None:
    """Lay two runs side by side: loss, gradient, flow, findings.

    \b
    unvanish compare runs/plain runs/resnet
    """  # noqa: D301 (the backspace keeps the lines apart)
    from unvanish.reports.run.compare import compared

    print(compared(_opened(first), _opened(second)))


def _opened(folder: Path) -> Any:
    from unvanish.store import StoreError, open_run

    try:
        return open_run(folder)
    except StoreError as error:
        raise CallError(f"RUN {error}") from error


SUFFIXES = {"--html": (".html",), "--png": (".png", ".svg"), "--export": (".csv", ".jsonl", ".parquet")}


def _refuse(option: str, path: Path | None) -> None:
    """Refuse before the work what could not be written after it."""
    if path is not None and path.suffix not in SUFFIXES[option]:
        raise CallError(f"{option} {path} must end in {' or '.join(SUFFIXES[option])}")
    if path is not None and not path.parent.is_dir():
        raise CallError(f"{option} {path}: there is no folder {path.parent}")


def _pages(run: Any, html: Path | None, png: Path | None, live: bool, port: int) -> None:
    from unvanish.reports.run import html as run_html

    try:
        for path in (html, png):
            if path is not None:
                print(f"wrote {run_html.save(run, path)}", file=sys.stderr)
        if live:
            from unvanish.cli.live import serve

            serve(run, port)
    except run_html.MissingLibrary as error:
        raise CallError(str(error)) from error
    except OSError as error:
        raise CallError(str(error)) from error
