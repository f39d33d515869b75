"""`unvanish zoo`: the networks that come along, by name, with what they are and how large."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unvanish.cli.errors import CallError, stoppable

Word = Annotated[str | None, typer.Argument(metavar="WORD", help="Only names or descriptions with this word.")]


@stoppable
def zoo(word: Word = None) -> None:
    """List the networks that train by name.

    \b
    unvanish zoo
    unvanish zoo translate
    """  # noqa: D301 (the backspace keeps the lines apart)
    from unvanish.models import zoo as names
    from unvanish.registry import suggest

    rows = [_row(name) for name in names()]
    if word is not None:
        rows = [row for row in rows if word.lower() in " ".join(row).lower()]
    if not rows:
        raise CallError(f"no network has {word!r} in its name or description{suggest(str(word), names())}")
    wide = max(len(row[0]) for row in rows)
    for name, task, size, text in rows:
        print(f"{name:<{wide}}  {task:<9} {size:>8}  {text}")


def _row(name: str) -> tuple[str, str, str, str]:
    """Name, task, parameters, description."""
    from unvanish.models import read

    spec = read(name)
    return name, spec.task, _size(spec), spec.description


def _size(spec: Any) -> str:
    """Parameters, counted on a network without numbers; of the facts that the YAML itself states."""
    import torch

    from unvanish.models import build

    with torch.device("meta"):
        count = sum(p.numel() for p in build(spec).parameters())
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"
