"""`unvanish cure MODEL`: the smallest set of remedies that proves itself, and the prescription as a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unvanish.cli import options
from unvanish.cli.check import batch_of, loss_of, subject_of
from unvanish.cli.errors import CallError, own_traceback, stoppable, told

if TYPE_CHECKING:
    from unvanish.core.cured import Cured


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
    allow: options.Allow = None,
    budget: options.Budget = 60.0,
    steps: options.Steps = 60,
    seed: options.Seed = 0,
) -> None:
    """Find the smallest set of remedies that heals the model, and prove it on a copy.

    \b
    unvanish cure net.py:build --data data.py:loader --loss cross_entropy --out cure.yaml
    unvanish cure net.py:build --input 3,32,32 --html cure.html
    """  # noqa: D301 (the backspace keeps the lines apart)
    _refuse_paths(out, html)
    if allow not in (None, "exact", "retrain"):
        raise CallError(f"--allow {allow!r} is no kind of remedy; use exact or retrain")
    subject = subject_of(model, seed, data, inputs or [], batch_size)
    batch = batch_of(subject, data, inputs or [], dtype or [], batch_size, seed)
    function, assumed = loss_of(subject, batch, loss, seed)
    chosen = {} if allow is None else {"allow": allow}
    cured = treated(subject, batch.value, function, budget=budget, steps=steps, seed=seed, **chosen)
    from unvanish.reports import report

    report(".txt", "cure").print_report(cured)
    for sentence in assumed:
        print(f"assumed: {sentence}")
    _write(cured, out, html)
    raise typer.Exit(0 if cured.success else 1)


def treated(subject: Any, batch: Any, loss: Any, **options: Any) -> Cured:
    """The outcome of `cure` for a subject; CallError where there is none."""
    import unvanish
    from unvanish.probes import CheckError, ModelCrash
    from unvanish.surgery.surgery import SurgeryError

    given = {k: v for k, v in subject.options.items() if k == "optimizer"}
    try:
        return unvanish.cure(subject.model, batch, loss, name=subject.name, **given, **options)
    except (CheckError, SurgeryError) as error:
        raise CallError(f"{subject.name}: {error}") from error
    except ModelCrash as error:
        cause = error.__cause__ or error
        place = f"in {error.site}" if error.site else "in the model"
        raise CallError(f"{subject.name} crashed {place}: {told(cause)}", own_traceback(cause)) from error


def _refuse_paths(out: Path | None, html: Path | None) -> None:
    """Refuse before the work what could not be written after it."""
    for option, path, suffixes in (("--out", out, (".yaml", ".yml")), ("--html", html, (".html",))):
        if path is not None and path.suffix not in suffixes:
            raise CallError(f"{option} {path} must end in {suffixes[0]}")
        if path is not None and not path.parent.is_dir():
            raise CallError(f"{option} {path}: there is no folder {path.parent}")


def _write(cured: Cured, out: Path | None, html: Path | None) -> None:
    try:
        if out is not None and cured.prescription:
            print(f"wrote {cured.prescription.save(out)}", file=sys.stderr)
        elif out is not None:
            print(f"there is nothing to prescribe, {out} was not written", file=sys.stderr)
        if html is not None:
            print(f"wrote {cured.save(html)}", file=sys.stderr)
    except OSError as error:
        raise CallError(str(error)) from error
