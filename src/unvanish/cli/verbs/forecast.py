"""`unvanish forecast MODEL`: the report of `check` from theory, before there is data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from unvanish.cli import options
from unvanish.cli.amnesty import excuse_findings
from unvanish.cli.errors import CallError, split_crash, stoppable
from unvanish.cli.outcome import choose_outlets, exit_code, keep_stdout, write_reports
from unvanish.cli.settings import read_settings
from unvanish.cli.sources import choose_batch, load_subject

if TYPE_CHECKING:
    from unvanish.core.diagnosis import Diagnosis

ORDER = 30


@stoppable
def forecast(
    model: options.Model,
    data: options.Data = None,
    inputs: options.Input = None,
    batch_size: options.BatchSize = 8,
    dtype: options.Dtype = None,
    power: options.Power = 1.0,
    html: options.Html = None,
    svg: options.Svg = None,
    json: options.Json = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    fail_on: options.FailOn = None,
    seed: options.Seed = 0,
    verbose: options.Verbose = False,
    allow_code: options.AllowCode = False,
) -> None:
    """Predict where the gradient will be lost, from theory.

    \b
    unvanish forecast net.py:build --input 3,224,224
    unvanish forecast hf:gpt2,n_layer=4
    """  # noqa: D301 (the backspace keeps the lines apart)
    settings = read_settings(select, ignore, fail_on)
    outlets = choose_outlets(html, json, svg=svg)
    with keep_stdout(outlets):
        subject = load_subject(model, seed, data, inputs or [], batch_size, allow_code)
        batch = choose_batch(subject, data, inputs or [], dtype or [], batch_size, seed)
        diagnosis = excuse_findings(_predict(subject, batch.value, settings, power), settings)
    write_reports(diagnosis, outlets, verbose=verbose)
    raise typer.Exit(exit_code(diagnosis, settings))


def _predict(subject: Any, batch: Any, settings: Any, power: float) -> Diagnosis:
    import unvanish
    from unvanish.probes import CheckError, ModelCrash
    from unvanish.probes.calls import tensors_in

    chosen = {"select": settings.select, "ignore": settings.ignore, "settings": settings.settings}
    try:
        return unvanish.forecast(subject.model, batch=batch, power=power, name=subject.name, **chosen)
    except CheckError as error:
        raise CallError(f"{subject.name}: {error}") from error
    except ModelCrash as error:
        place, reason, trace = split_crash(error)
        shapes = " and ".join(str(tuple(t.shape)) for t in tensors_in(batch)) or "no tensors"
        text = (
            f"{subject.name} failed {place} on a batch of {shapes}: {reason}; is that the input it expects?"
        )
        raise CallError(text, trace) from error
