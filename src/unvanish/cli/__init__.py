"""The command `unvanish`: one file in `verbs/` for each command, which imports everything heavy when it runs.

Notable:
- Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 the call was wrong, 130 stopped with Ctrl-C.
- `unvanish --help` imports neither torch nor NumPy.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from unvanish.cli.errors import CallError, show_error, show_fault
from unvanish.cli.verbs import find_verbs
from unvanish.core.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="unvanish",
    help="Find where a deep network loses its gradient, name the cause, prove a cure; train networks.",
    epilog="Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 the call was wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in find_verbs():
    app.command(context_settings={**verb.context})(verb.run)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unvanish {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Options before a command."""


def main() -> None:
    """Run the command line; ends the process with the exit code."""
    try:
        app(prog_name="unvanish")
    except CallError as error:
        show_error(error)
        sys.exit(error.code)
    except Exception as error:
        show_fault(error)
        sys.exit(2)
