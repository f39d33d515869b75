"""`unvanish check MODEL`: one batch, the causes by name, and an exit code for continuous integration."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unvanish.cli import options
from unvanish.cli.errors import CallError, stoppable

if TYPE_CHECKING:
    from unvanish.cli.subject import Batch, Subject
    from unvanish.clinic.config import Config
    from unvanish.core.diagnosis import Diagnosis


@stoppable
def check(
    model: options.Model,
    data: options.Data = None,
    inputs: options.Input = None,
    batch_size: options.BatchSize = 8,
    dtype: options.Dtype = None,
    loss: options.Loss = None,
    html: options.Html = None,
    json: options.Json = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    fail_on: options.FailOn = None,
    no_confirm: options.NoConfirm = False,
    snapshot: options.Snapshot = None,
    seed: options.Seed = 0,
) -> None:
    """Measure one batch and name where the gradient is lost.

    \b
    unvanish check net.py:build --data data.py:loader --loss cross_entropy
    unvanish check resnet20.yaml --data digits.yaml
    unvanish check package.models:Net --input 3,224,224 --html report.html
    unvanish check hf:gpt2,n_layer=4 --fail-on error
    unvanish check net.py:build --snapshot runs/mine/snapshots/step-812-NUM001.pt
    """  # noqa: D301 (the backspace keeps the lines apart)
    settings = settings_of(select, ignore, fail_on)
    refuse_paths(html, json)
    with stdout_kept(for_json=json == "-"):
        subject = subject_of(model, seed, data, inputs or [], batch_size)
        if snapshot is not None:
            from unvanish.cli.snapshot import restored

            subject = restored(subject, snapshot)
        batch = batch_of(subject, data, inputs or [], dtype or [], batch_size, seed)
        diagnosis = _diagnose(subject, batch, loss, settings, not no_confirm, seed)
    write(diagnosis, html, json)
    level = settings.fail_on or "warning"
    raise typer.Exit(0 if level == "never" else int(bool(diagnosis.at_least(level))))  # type: ignore[arg-type]


def settings_of(select: str | None, ignore: str | None, fail_on: str | None) -> Config:
    """The project's settings with those of the call in their place."""
    from unvanish.clinic import config
    from unvanish.core.registry import suggest
    from unvanish.rules import rules

    if fail_on is not None and fail_on not in config.FAIL_ON:
        levels = ", ".join(config.FAIL_ON)
        near = suggest(fail_on, config.FAIL_ON)
        raise CallError(f"--fail-on {fail_on!r} is no level{near}; there are {levels}")
    try:
        own = config.load()
        if select is not None:
            config.select_codes(rules(), config.split(select))
            own = dataclasses.replace(own, select=config.split(select))
        if ignore is not None:
            config.select_codes(rules(), None, config.split(ignore))
            own = dataclasses.replace(own, ignore=config.split(ignore))
    except config.ConfigError as error:
        dashes = "--" if str(error).startswith(("select:", "ignore:")) else ""
        raise CallError(f"{dashes}{error}") from error
    return dataclasses.replace(own, fail_on=fail_on or own.fail_on)


def refuse_paths(html: Path | None, json: str | None) -> None:
    """Refuse before the work what could not be written after it."""
    wanted = [("--html", html, ".html"), ("--json", Path(json) if json and json != "-" else None, ".json")]
    for option, path, suffix in wanted:
        if path is not None and path.suffix != suffix:
            raise CallError(f"{option} {path} must end in {suffix}")
        if path is not None and not path.parent.is_dir():
            raise CallError(f"{option} {path}: there is no folder {path.parent}")


@contextlib.contextmanager
def stdout_kept(for_json: bool) -> Iterator[None]:
    """Send what the user's own code prints to stderr, where stdout is to hold JSON alone."""
    with contextlib.redirect_stdout(sys.stderr) if for_json else contextlib.nullcontext():
        yield


def subject_of(
    text: str, seed: int, data: str | None = None, inputs: Sequence[str] = (), size: int = 8
) -> Subject:
    """What MODEL names; a YAML's network is built for the data or the input of the call."""
    import torch

    from unvanish.cli import lab, model

    torch.manual_seed(seed)
    return lab.subject(text, data, inputs, size, seed) if text.endswith(lab.YAML) else model.load(text)


def batch_of(
    subject: Subject, data: str | None, inputs: list[str], dtypes: list[str], size: int, seed: int
) -> Batch:
    """The batch of the call, else the one that came with the model, else the model's own random one."""
    from unvanish.cli import data as source
    from unvanish.cli import lab
    from unvanish.cli.subject import Batch

    if data is not None and inputs:
        raise CallError("--data and --input are both given; give one of them")
    if dtypes and not inputs:
        raise CallError("--dtype says what --input makes; give --input too")
    if data is not None and data.endswith(lab.YAML):
        return Batch(subject.batch) if subject.name.endswith(lab.YAML) else lab.batch(data, size, seed)
    if data is not None:
        return Batch(source.load(data))
    if inputs or (subject.batch is None and subject.random_batch is not None):
        return source.random(subject, inputs, dtypes, size, seed)
    if subject.batch is None:
        ways = "--data FILE.py:callable, --data FILE.pt, or a shape without the batch: --input 3,224,224"
        raise CallError(f"MODEL {subject.name} came without a batch; give {ways}")
    return Batch(subject.batch)


def loss_of(subject: Subject, batch: Batch, loss: str | None, seed: int) -> tuple[Any, tuple[str, ...]]:
    """The loss of the call, else the one that came with the model; and all that is assumed."""
    from unvanish.cli import loss as source

    if loss is None:
        return subject.loss, batch.assumptions
    target = isinstance(batch.value, tuple) and len(batch.value) == 2
    function, more = source.load(loss, target, seed)
    return function, batch.assumptions + more


def _diagnose(
    subject: Subject, batch: Batch, loss: str | None, settings: Config, confirm: bool, seed: int
) -> Diagnosis:
    from unvanish.cli.examine import examined

    function, assumed = loss_of(subject, batch, loss, seed)
    unless = {} if confirm else {"confirm": False}
    return examined(subject, batch.value, function, settings, assumed, **unless)


def write(diagnosis: Diagnosis, html: Path | None, json: str | None) -> None:
    """Print the report and write the files that were asked for."""
    from unvanish.reports import report

    if json == "-":
        print(report(".json").render(diagnosis))
    else:
        report(".txt").print_report(diagnosis)
    for path in (html, json if json != "-" else None):
        if path is not None:
            try:
                written = diagnosis.save(path)
            except OSError as error:
                raise CallError(str(error)) from error
            print(f"wrote {written}", file=sys.stderr)
