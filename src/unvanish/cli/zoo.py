"""`unvanish zoo`: the networks that come along, by name, with what they are and how large."""

from __future__ import annotations

from typing import Annotated

import typer

from unvanish.cli.errors import CallError, stoppable

Word = Annotated[
    str | None, typer.Argument(metavar="WORD", help="Only names or descriptions with this word.")
]


Sizes = Annotated[
    bool, typer.Option("--sizes", help="Count parameters too, which takes seconds for deep ones.")
]


@stoppable
def zoo(word: Word = None, sizes: Sizes = False) -> None:
    """List the networks that train by name.

    \b
    unvanish zoo
    unvanish zoo resnet --sizes
    """  # noqa: D301 (the backspace keeps the lines apart)
    from unvanish.core.registry import suggest
    from unvanish.lab.models import catalogue

    entries = catalogue()
    chosen = [
        e for e in entries if word is None or word.lower() in f"{e.name} {e.task} {e.description}".lower()
    ]
    if not chosen:
        near = suggest(str(word), [e.name for e in entries])
        raise CallError(
            f"no network has {word!r} in its name, task or description{near}; `unvanish zoo` lists all"
        )
    wide = max(len(entry.name) for entry in chosen)
    for entry in chosen:
        size = f"{_size(entry.name):>8}  " if sizes else ""
        print(f"{entry.name:<{wide}}  {entry.task:<9}  {size}{entry.description}", flush=sizes)


def _size(name: str) -> str:
    """Parameters, counted on a network without numbers; of the facts that the YAML itself states."""
    from unvanish.lab.models import build

    count = sum(p.numel() for p in build(f"{name}.yaml", device="meta").parameters())
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"
