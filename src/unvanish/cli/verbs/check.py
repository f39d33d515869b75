"""`unvanish check MODEL`: one batch, the causes by name, and an exit code for continuous integration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from unvanish.cli import options
from unvanish.cli.amnesty import excuse_findings, open_baseline, renew_baseline
from unvanish.cli.errors import stoppable
from unvanish.cli.outcome import choose_outlets, exit_code, keep_stdout, write_reports
from unvanish.cli.settings import read_settings
from unvanish.cli.sources import choose_batch, choose_loss, load_subject

if TYPE_CHECKING:
    from unvanish.cli.subject import Batch, Subject
    from unvanish.clinic.config import Config
    from unvanish.core.diagnosis import Diagnosis

ORDER = 10


@stoppable
def check(
    model: options.Model,
    data: options.Data = None,
    inputs: options.Input = None,
    batch_size: options.BatchSize = 8,
    dtype: options.Dtype = None,
    loss: options.Loss = None,
    html: options.Html = None,
    svg: options.Svg = None,
    json: options.Json = None,
    formats: options.Format = None,
    output: options.Output = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    fail_on: options.FailOn = None,
    baseline: options.OldFindings = None,
    write_baseline: options.NewBaseline = None,
    no_confirm: options.NoConfirm = False,
    lr: options.Rate = None,
    snapshot: options.Snapshot = None,
    seed: options.Seed = 0,
    verbose: options.Verbose = False,
    allow_code: options.AllowCode = False,
) -> None:
    """Measure one batch and name where the gradient is lost.

    \b
    unvanish check net.py:build --data data.py:loader --loss cross_entropy
    unvanish check resnet20.yaml --data digits.yaml
    unvanish check package.models:Net --input 3,224,224 --html report.html
    unvanish check hf:gpt2,n_layer=4 --fail-on error
    unvanish check net.py:build --data data.py:loader --loss cross_entropy --lr 0.1
    unvanish check net.py:build --format github --format sarif=unvanish.sarif --baseline old.json
    unvanish check net.py:build --snapshot runs/mine/snapshots/step-812-NUM001.pt
    """  # noqa: D301 (the backspace keeps the lines apart)
    settings = read_settings(select, ignore, fail_on)
    outlets = choose_outlets(html, json, formats or (), output, svg)
    old = open_baseline(settings, baseline, write_baseline)
    with keep_stdout(outlets):
        subject = load_subject(model, seed, data, inputs or [], batch_size, allow_code)
        if snapshot is not None:
            from unvanish.cli.snapshot import restore

            subject = restore(subject, snapshot)
        batch = choose_batch(subject, data, inputs or [], dtype or [], batch_size, seed)
        diagnosis = _diagnose(subject, batch, loss, settings, not no_confirm, seed, lr)
    if write_baseline is not None:
        old = renew_baseline(diagnosis, settings, old, write_baseline)
    diagnosis = excuse_findings(diagnosis, settings, old)
    write_reports(diagnosis, outlets, settings.fail_on, verbose=verbose)
    raise typer.Exit(exit_code(diagnosis, settings))


def _diagnose(
    subject: Subject,
    batch: Batch,
    loss: str | None,
    settings: Config,
    confirm: bool,
    seed: int,
    rate: float | None,
) -> Diagnosis:
    from unvanish.cli.examine import examine

    function, assumed = choose_loss(subject, batch, loss, seed)
    more: dict[str, Any] = {} if confirm else {"confirm": False}
    if rate is not None:
        more["lr"] = rate
    return examine(subject, batch.value, function, settings, assumed, **more)
