"""`unvanish mcp`: a server for agents, which speaks the Model Context Protocol over stdin and stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unvanish.cli import options
from unvanish.cli.errors import CallError, stoppable

ORDER = 107

Root = Annotated[Path, typer.Option("--root", help="The folder that every file must lie in.")]
Limit = Annotated[
    float,
    typer.Option(
        "--time-limit",
        min=1.0,
        max=86400.0,
        callback=options.refuse_nan,
        metavar="SECONDS",
        help="What a tool may take.",
    ),
]


@stoppable
def mcp(root: Root = Path("."), time_limit: Limit = 300.0) -> None:
    """Serve check, cure, forecast, explain, rules and show to agents, by the Model Context Protocol.

    \b
    unvanish mcp --root path/to/project
    """  # noqa: D301 (the backspace keeps the lines apart)
    if not root.is_dir():
        raise CallError(f"--root {root}: there is no such folder")
    try:
        from unvanish.cli.server import serve
    except ImportError as error:
        raise CallError(
            f"unvanish mcp needs the SDK, which is not installed: pip install 'unvanish[mcp]' ({error})"
        ) from error
    serve(root.resolve(), time_limit)
