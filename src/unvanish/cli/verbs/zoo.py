"""`unvanish zoo`: the networks of the zoo, with their task, their description and their size."""

from __future__ import annotations

from typing import Annotated

import typer

from unvanish.cli import options
from unvanish.cli.errors import CallError, stoppable
from unvanish.cli.outcome import is_alone, write_json

ORDER = 110

Word = Annotated[
    str | None,
    typer.Argument(metavar="WORD", help="Only networks with this word in name, task or description."),
]
Sizes = Annotated[
    bool, typer.Option("--sizes", help="Count parameters too, which takes seconds for deep networks.")
]


@stoppable
def zoo(word: Word = None, sizes: Sizes = False, json: options.Json = None) -> None:
    """List the networks that can be trained by name.

    \b
    unvanish zoo
    unvanish zoo resnet --sizes
    """  # noqa: D301 (the backspace keeps the lines apart)
    from unvanish.core.registry import suggest
    from unvanish.lab.models import catalogue

    alone, entries = is_alone(json), catalogue()
    chosen = [
        e for e in entries if word is None or word.lower() in f"{e.name} {e.task} {e.description}".lower()
    ]
    if not chosen:
        near = suggest(str(word), [e.name for e in entries])
        raise CallError(
            f"no network has {word!r} in its name, task or description{near}; `unvanish zoo` lists all"
        )
    if json:
        from unvanish.reports.documents import zoo as document

        counts = [_count_parameters(e.name) if sizes else None for e in chosen]
        rows = [(e.name, e.task, e.description, n) for e, n in zip(chosen, counts, strict=True)]
        write_json(document.build(rows), json)
    if alone:
        return
    wide = max(len(entry.name) for entry in chosen)
    for entry in chosen:
        size = f"{_format_count(_count_parameters(entry.name)):>8}  " if sizes else ""
        print(f"{entry.name:<{wide}}  {entry.task:<9}  {size}{entry.description}", flush=sizes)


def _count_parameters(name: str) -> int:
    """The number of parameters, counted on the meta device with the facts of the YAML alone."""
    from unvanish.lab.models import build

    return sum(p.numel() for p in build(f"{name}.yaml", device="meta").parameters())


def _format_count(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"
