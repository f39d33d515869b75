"""The command `unvanish`: one file in `verbs/` for each command, which imports everything heavy when it runs.

Notable:
- Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 the call was wrong, 130 stopped with Ctrl-C.
- A wrong call is one line on stderr, of typer's checks too.
- `unvanish --help` imports neither torch nor NumPy.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from unvanish.cli.errors import CallError, show_error, show_failure
from unvanish.cli.verbs import find_verbs
from unvanish.core.version import __version__

__all__ = ["app", "main"]

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
SPINS = "1000"  # some microseconds: 5 % slower on a quiet machine, several times faster on a busy one

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
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Options before a command."""
    if context.invoked_subcommand != "run":  # whose threads are the user's own affair
        wait_briefly()


def wait_briefly() -> None:
    """Have OpenMP's threads soon sleep when they wait for each other; torch reads this when it is loaded.

    Their usual waiting in a loop takes the cores from the very threads that are waited for, as soon as
    another program runs. The results are the same.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def main() -> None:
    """Run the command line; ends the process with the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may hold any byte
    try:
        code = int(app(prog_name="unvanish", standalone_mode=False) or 0)
        sys.stdout.flush()
    except CallError as error:
        show_error(error)
        code = error.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on, as after `| head`
        code = 141
    except Exception as error:
        code = show_failure(error)
    sys.exit(code)
