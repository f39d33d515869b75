"""`unvanish phase`: the order-chaos diagram of an activation, and the user's own net as a point in it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from unvanish.cli import options
from unvanish.cli.check import batch_of, subject_of
from unvanish.cli.errors import CallError, stoppable

Own = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="Your own net, as a point in the diagram.")
]
Activation = Annotated[
    str | None, typer.Option("--activation", help="tanh, relu, gelu ...; the model's own by default.")
]
Depth = Annotated[
    int | None, typer.Option("--depth", min=1, help="Say which weights a net of this depth needs.")
]


@stoppable
def phase(
    model: Own = None,
    activation: Activation = None,
    depth: Depth = None,
    data: options.Data = None,
    inputs: options.Input = None,
    dtype: options.Dtype = None,
    html: options.Html = None,
    seed: options.Seed = 0,
) -> None:
    """Draw how deep a net can be trained, by the size of its weights and biases.

    \b
    unvanish phase --activation tanh
    unvanish phase net.py:build --input 784 --html phase.html
    """  # noqa: D301 (the backspace keeps the lines apart)
    from rich.console import Console

    from unvanish.reports.parts import phase as _phase
    from unvanish.theory.phase import depth_of
    from unvanish.theory.phase import phase as diagram

    if model is None and activation is None:
        raise CallError("give --activation, as in --activation tanh, or a MODEL")
    if html is not None and (html.suffix != ".html" or not html.parent.is_dir()):
        raise CallError(f"--html {html} must end in .html and lie in a folder that exists")
    own, used = _point(model, data, inputs or [], dtype or [], seed) if model is not None else ([], "")
    chosen = activation or used
    console = Console(highlight=False)
    try:
        most = max([3.0, *(1.2 * sw for _, sw, _ in own)])
        found = diagram(chosen, sw=most)
        fine = diagram(chosen, sw=most, columns=160, rows=80) if html is not None else found
    except ValueError as error:
        raise CallError(f"--activation: {error}") from error
    for line in _phase.picture(found, own):
        console.print(line, soft_wrap=True)
    console.print(
        f"\nthe critical line of {found.activation}, where the gradient keeps its size at length q*:"
    )
    console.print(_phase.critical_table(found))
    for name, sw, sb in own:
        log, reach = depth_of(chosen, sw, sb)
        side = "on the critical line" if reach > 1e4 else "vanishing" if log < 0 else "exploding"
        console.print(
            f"\n{name}: sw {sw:.3f}, sb {sb:.3f}, {chosen}: {side}, "
            f"trainable to about {min(reach, 1e6):,.0f} layers"
        )
    if depth is not None:
        console.print(f"\n{_advice(chosen, depth)}")
    if html is not None:
        from unvanish.store.files import write_text

        print(f"wrote {write_text(html, _phase.page(fine, own), 'page')}", file=sys.stderr)


def _advice(activation: str, depth: int) -> str:
    from unvanish.theory.initialisers import start

    point = start(activation, depth)
    kind = "critical" if point.critical else "of unit gradient gain"
    sizes = f"weights {point.sw:.4f}/sqrt(fan_in), biases {point.sb:.4f}"
    return f"for {depth} layers of {activation}: {sizes} ({kind})"


def _point(model: str, data: Any, inputs: list[str], dtype: list[str], seed: int) -> tuple[list[Any], str]:
    """The net's middle weights and biases, and its commonest activation."""
    from collections import Counter
    from statistics import median

    import numpy as np

    from unvanish.probes import CheckError, ModelCrash
    from unvanish.probes.program.outline import outline

    subject = subject_of(model, seed, data, inputs, 2)
    batch = batch_of(subject, data, inputs, dtype, 2, seed)
    try:
        steps = outline(subject.model, batch.value).program.steps
    except (CheckError, ModelCrash) as error:
        raise CallError(f"{subject.name}: {error}") from error
    layers = [s for s in steps if "taps" in s.facts]
    acts = Counter(s.kind for s in steps if s.family == "activation")
    if not layers or not acts:
        raise CallError(
            f"{subject.name} has no layers with an activation between them; give --activation alone"
        )
    sw = median(float(np.sum(s.facts["taps"])) ** 0.5 for s in layers)
    sb = median(s.facts["bias_power"] ** 0.5 for s in layers)
    return [(subject.name, sw, sb)], acts.most_common(1)[0][0]
