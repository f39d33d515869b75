"""`unvanish schema [NAME]`: the JSON Schemas of what the other commands write for programs."""

from __future__ import annotations

from typing import Annotated

import typer

from unvanish.cli.errors import CallError, stoppable
from unvanish.cli.pages import find_sentence

ORDER = 105

Document = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="A document: diagnosis, run ...; without it, their list."),
]


@stoppable
def schema(name: Document = None) -> None:
    """Print the schema of a JSON document; without a name, list them.

    \b
    unvanish schema diagnosis > diagnosis.schema.json
    """  # noqa: D301 (the backspace keeps the lines apart)
    from unvanish.core.registry import suggest
    from unvanish.reports.documents import find_documents, write_document

    known = find_documents()
    if name is None:
        for document in known.values():
            print(document.NAME, find_sentence(str(document.__doc__)), sep="\t")
        return
    plain = name.removeprefix("unvanish.").partition("/")[0]
    if plain not in known or name not in (plain, f"unvanish.{plain}", known[plain].NAME):
        near = suggest(name, [*known, *(document.NAME for document in known.values())])
        raise CallError(f"there is no document {name!r}{near}; there are {', '.join(known)}")
    print(write_document(known[plain].SCHEMA), end="")
