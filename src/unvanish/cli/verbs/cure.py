"""`unvanish cure MODEL`: the smallest set of remedies that passes a proof, and the prescription as a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from unvanish.cli import options
from unvanish.cli.errors import CallError, stoppable
from unvanish.cli.outcome import free_stdout, is_alone, refuse_path, write_json
from unvanish.cli.sources import choose_batch, choose_loss, load_subject
from unvanish.cli.treat import treat

if TYPE_CHECKING:
    from unvanish.core.cured import Cured

ORDER = 20


@stoppable
def cure(
    model: options.Model,
    data: options.Data = None,
    inputs: options.Input = None,
    batch_size: options.BatchSize = 8,
    dtype: options.Dtype = None,
    loss: options.Loss = None,
    out: options.Out = None,
    html: options.Html = None,
    json: options.Json = None,
    svg: options.Svg = None,
    allow: options.Allow = None,
    budget: options.Budget = 60.0,
    steps: options.Steps = 60,
    seed: options.Seed = 0,
    verbose: options.Verbose = False,
    allow_code: options.AllowCode = False,
) -> None:
    """Find the smallest cure and prove it on a copy.

    \b
    unvanish cure net.py:build --data data.py:loader --loss cross_entropy --out cure.yaml
    unvanish cure net.py:build --input 3,32,32 --html cure.html
    """  # noqa: D301 (the backspace keeps the lines apart)
    refuse_path("--out", out, ".yaml", ".yml")
    refuse_path("--html", html, ".html")
    refuse_path("--svg", svg, ".svg")
    alone = is_alone(json)
    if allow not in (None, "exact", "retrain"):
        raise CallError(f"--allow {allow!r} is not a kind of remedy; use exact or retrain")
    chosen = {} if allow is None else {"allow": allow}
    with free_stdout(alone):
        subject = load_subject(model, seed, data, inputs or [], batch_size, allow_code)
        batch = choose_batch(subject, data, inputs or [], dtype or [], batch_size, seed)
        function, assumed = choose_loss(subject, batch, loss, seed)
        cured = treat(
            subject, batch.value, function, assumed, budget=budget, steps=steps, seed=seed, **chosen
        )
    from unvanish.reports import print_report
    from unvanish.reports.documents import cured as document

    if not alone:
        print_report(cured, verbose=verbose)
    _write(cured, out, (html, svg))
    if json:
        write_json(document.build(cured), json)
    raise typer.Exit(0 if cured.success else 1)


def _write(cured: Cured, out: Path | None, pages: Sequence[Path | None]) -> None:
    try:
        if out is not None and cured.prescription:
            print(f"wrote {cured.prescription.save(out)}", file=sys.stderr)
        elif out is not None:
            print(f"there is nothing to prescribe, {out} was not written", file=sys.stderr)
        for page in pages:
            if page is not None:
                print(f"wrote {cured.save(page)}", file=sys.stderr)
    except OSError as error:
        raise CallError(str(error)) from error
