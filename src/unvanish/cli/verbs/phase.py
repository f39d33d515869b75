"""`unvanish phase`: the order-chaos diagram of an activation, and the user's own net as a point in it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from unvanish.cli import options
from unvanish.cli.errors import CallError, stoppable
from unvanish.cli.outcome import free_stdout, is_alone, refuse_path, write_json
from unvanish.cli.sources import choose_batch, load_subject

if TYPE_CHECKING:
    from unvanish.reports.phase.bands import OwnNet

ORDER = 40

Own = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="Your own net, as a point in the diagram.")
]
Activation = Annotated[
    str | None, typer.Option("--activation", help="tanh, relu, gelu ...; the model's own by default.")
]
Depth = Annotated[
    int | None,
    typer.Option("--depth", min=1, max=10**9, help="Print the weights that a net of this depth needs."),
]
LARGEST, MARGIN = 3.0, 1.2  # weights of the diagram, and the room that a net beyond them gets
FINE = {"columns": 160, "rows": 80}  # of a page


@stoppable
def phase(
    model: Own = None,
    activation: Activation = None,
    depth: Depth = None,
    data: options.Data = None,
    inputs: options.Input = None,
    dtype: options.Dtype = None,
    html: options.Html = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    allow_code: options.AllowCode = False,
) -> None:
    """Draw which weights and biases let a deep net train.

    \b
    unvanish phase --activation tanh
    unvanish phase net.py:build --input 784 --html phase.html
    """  # noqa: D301 (the backspace keeps the lines apart)
    if model is None and activation is None:
        raise CallError("give --activation, as in --activation tanh, or a MODEL")
    refuse_path("--html", html, ".html")
    alone = is_alone(json)
    own: list[OwnNet] = []
    main = ""
    if model is not None:
        with free_stdout(alone):
            own, main = _measure(model, data, inputs or [], dtype or [], seed, allow_code)
    chosen = activation or main
    try:
        if not alone:
            _print(chosen, own, depth)
        if json:
            _write_document(chosen, own, depth, json)
        if html is not None:
            _write(chosen, own, html)
    except ValueError as error:
        raise CallError(f"--activation: {error}") from error
    except OSError as error:
        raise CallError(str(error)) from error


def _print(activation: str, own: Sequence[OwnNet], depth: int | None) -> None:
    from rich.console import Console

    from unvanish.reports.phase import text
    from unvanish.theory.phase import phase as diagram

    console = Console(highlight=False)
    found = diagram(activation, sw=_widest(own))
    for line in text.draw_picture(found, own):
        console.print(line, soft_wrap=True)
    title = f"the critical line of {found.activation}, where the gradient keeps its size at length q*:"
    console.print(f"\n{title}")
    console.print(text.list_critical(found))
    for net in own:
        console.print(f"\n{text.describe_net(net, activation)}")
    if depth is not None:
        console.print(f"\n{text.describe_start(activation, depth)}")


def _write_document(activation: str, own: Sequence[OwnNet], depth: int | None, json: str) -> None:
    from unvanish.reports.documents import phase as document
    from unvanish.theory.phase import phase as diagram

    write_json(document.build(diagram(activation, sw=_widest(own)), own, depth), json)


def _write(activation: str, own: Sequence[OwnNet], path: Path) -> None:
    from unvanish.reports.phase.html import render
    from unvanish.store.files import write_text
    from unvanish.theory.phase import phase as diagram

    page = render(diagram(activation, sw=_widest(own), **FINE), own)
    print(f"wrote {write_text(path, page, 'page')}", file=sys.stderr)


def _widest(own: Sequence[OwnNet]) -> float:
    return max([LARGEST, *(MARGIN * net.sw for net in own)])


def _measure(
    model: str, data: str | None, inputs: list[str], dtype: list[str], seed: int, allow_code: bool
) -> tuple[list[OwnNet], str]:
    """The net's median weights and biases, and its most common activation."""
    import numpy as np

    from unvanish.probes import CheckError, ModelCrash
    from unvanish.probes.program.outline import outline
    from unvanish.reports.phase.bands import OwnNet

    subject = load_subject(model, seed, data, inputs, 2, allow_code)
    batch = choose_batch(subject, data, inputs, dtype, 2, seed)
    try:
        steps = outline(subject.model, batch.value).program.steps
    except (CheckError, ModelCrash) as error:
        raise CallError(f"{subject.name}: {error}") from error
    layers = [s for s in steps if "taps" in s.facts]
    activations = Counter(s.kind for s in steps if s.family == "activation")
    if not layers or not activations:
        reason = "has no layers with an activation between them"
        raise CallError(f"{subject.name} {reason}; give --activation alone")
    sw = median(float(np.sum(s.facts["taps"])) ** 0.5 for s in layers)
    sb = median(s.facts["bias_power"] ** 0.5 for s in layers)
    return [OwnNet(subject.name, sw, sb)], activations.most_common(1)[0][0]
