"""`unvanish explain NAME`: the page of a rule or a cure."""

from __future__ import annotations

from typing import Annotated

import typer

from unvanish.cli import options
from unvanish.cli.errors import stoppable
from unvanish.cli.pages import show_page

ORDER = 50

Page = Annotated[str, typer.Argument(metavar="NAME", help="A rule's code or name, or a cure's name.")]


@stoppable
def explain(name: Page, json: options.Json = None) -> None:
    """Show the page of a rule or a cure."""
    show_page(name, json)
