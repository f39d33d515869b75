"""`unvanish forecast MODEL`: what `check` would say, from theory, before there is data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from unvanish.cli import options
from unvanish.cli.check import batch_of, refuse_paths, settings_of, stdout_kept, subject_of, write
from unvanish.cli.errors import CallError, own_traceback, stoppable, told

if TYPE_CHECKING:
    from unvanish.core.diagnosis import Diagnosis


@stoppable
def forecast(
    model: options.Model,
    data: options.Data = None,
    inputs: options.Input = None,
    batch_size: options.BatchSize = 8,
    dtype: options.Dtype = None,
    power: options.Power = 1.0,
    html: options.Html = None,
    json: options.Json = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    fail_on: options.FailOn = None,
    seed: options.Seed = 0,
) -> None:
    """Predict where the gradient will be lost; no data, no training.

    \b
    unvanish forecast net.py:build --input 3,224,224
    unvanish forecast hf:gpt2,n_layer=4
    """  # noqa: D301 (the backspace keeps the lines apart)
    settings = settings_of(select, ignore, fail_on)
    refuse_paths(html, json)
    with stdout_kept(for_json=json == "-"):
        subject = subject_of(model, seed, data, inputs or [], batch_size)
        batch = batch_of(subject, data, inputs or [], dtype or [], batch_size, seed)
        said = _said(subject, batch.value, settings, power)
    write(said, html, json)
    level = settings.fail_on or "warning"
    raise typer.Exit(0 if level == "never" else int(bool(said.at_least(level))))  # type: ignore[arg-type]


def _said(subject: Any, batch: Any, settings: Any, power: float) -> Diagnosis:
    import unvanish
    from unvanish.probes import CheckError, ModelCrash
    from unvanish.probes.calls import tensors_in

    chosen = {"select": settings.select, "ignore": settings.ignore, "settings": settings.settings}
    try:
        return unvanish.forecast(subject.model, batch=batch, power=power, name=subject.name, **chosen)
    except CheckError as error:
        raise CallError(f"{subject.name}: {error}") from error
    except ModelCrash as error:
        cause = error.__cause__ or error
        place = f"in {error.site}" if error.site else "in the model"
        shapes = " and ".join(str(tuple(t.shape)) for t in tensors_in(batch)) or "no tensors"
        text = f"{subject.name} failed {place} on a batch of {shapes}: {told(cause)}; is that what it takes?"
        raise CallError(text, own_traceback(cause)) from error
