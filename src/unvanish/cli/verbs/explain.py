"""`unvanish explain NAME`: the page of a rule or a cure, or of a symptom by its words."""

from __future__ import annotations

from typing import Annotated

import typer

from unvanish.cli import options
from unvanish.cli.errors import stoppable
from unvanish.cli.pages import print_table, show_page, write_index

ORDER = 50

Page = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]", help="A rule's code or name, a cure's name, or what you see: loss is nan."
    ),
]


@stoppable
def explain(name: Page = None, json: options.Json = None) -> None:
    """Show the page of a rule, a cure or a symptom; without a name list the symptoms."""
    if name:
        return show_page(" ".join(name), json)
    from unvanish.symptoms import symptoms

    pages = symptoms().values()
    if not write_index("symptom", pages, json):
        print_table(("name", "symptom", "rules"), [(p.name, p.title, ", ".join(p.codes)) for p in pages])
