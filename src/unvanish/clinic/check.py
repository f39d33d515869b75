"""`check`: one batch, the causes by name, worst first, each confirmed by experiment if that is cheap.

Notable: the rules judge what was measured (`rounds`); an experiment on a copy then tells a confirmed cause
from an indicated one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unvanish.clinic.arguments import require_flag, require_number, require_text
from unvanish.clinic.code_lines import locate
from unvanish.clinic.planned_step import try_step
from unvanish.clinic.rounds import RuleChoice, choose_rules, fold, rank, visit
from unvanish.core.diagnosis import SEVERITIES, Diagnosis
from unvanish.core.omissions import Omissions
from unvanish.core.trace import Trace
from unvanish.probes import CheckError, ModelCrash
from unvanish.probes.batches import Reading, read_batch
from unvanish.probes.intact import Kept, intact
from unvanish.probes.passes import Specimen
from unvanish.probes.record import measure, read_specimen, say_lost


def check(
    model: Any,
    batch: Any,
    loss: Callable[..., Any] | None = None,
    *,
    step: Callable[[Any, Any], Any] | None = None,
    optimizer: Any = None,
    lr: float | None = None,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    confirm: bool = True,
    theory: bool = True,
    name: str | None = None,
) -> Diagnosis:
    """Measure one batch and name where the gradient is lost; the model is bit-identical afterwards.

    `batch`: what a loader yields, or the loader, whose first batch is taken (`probes.batches` says how each
    kind is read). `loss`: called as loss(output, y) or loss(output); without one the model's own
    `training_step` serves, or the output's own `.loss`, else a random cotangent. `step`: in place of a loss
    a function of (model, batch) that runs the model and returns the loss.
    `optimizer`: what holds the parameters. `lr`: try its step at this rate (without it, the gradient's own)
    and say how far that is from the largest rate that lowers the loss.
    `select`, `ignore`: rule codes or prefixes ("ACT", "INI001"); `settings`: {"ACT001": {"limit": 0.6}}.
    `confirm`: try on a copy whether removing the cause restores the flow. `theory`: show what was
    measured with what theory expects. CheckError if the arguments do not fit together, `probes.ModelCrash` if
    the model raises.
    """
    started = time.perf_counter()
    require_text(name=name)
    require_flag(confirm=confirm, theory=theory)
    choice = choose_rules(select, ignore, settings)
    if optimizer is not None:
        require_optimizer(optimizer)
    if lr is not None:
        require_number("lr", lr, "rate")
    reading = read_batch(model, batch, loss, step=step)
    options = {"optimizer": optimizer, "lr": lr, "confirm": confirm, "theory": theory}
    return diagnose(model, reading, choice, **options, name=name, started=started)


def diagnose(
    model: Any,
    reading: Reading,
    choice: RuleChoice,
    *,
    optimizer: Any = None,
    lr: float | None = None,
    confirm: bool = True,
    theory: bool = True,
    name: str | None = None,
    started: float | None = None,
) -> Diagnosis:
    """The same of a batch that was read, under the rules that were chosen."""
    started = time.perf_counter() if started is None else started
    batch, loss = reading.batch, reading.loss
    specimen = read_specimen(model, batch, loss, optimizer=optimizer, theory=theory)
    with intact(specimen.model, batch, loss) as kept, kept:
        trace = _measure(specimen, kept, reading.notes)
        if optimizer is not None or lr is not None:
            trace = try_step(trace, specimen, None if lr is None else float(lr))
        rounds = visit(trace, choice)
        findings = fold(rank(rounds.findings))
        if confirm and findings:
            from unvanish.probes.experiments import confirm_cause

            omissions = Omissions()
            findings = confirm_cause(findings, trace, specimen.model, batch, loss, omissions)
            if left_out := omissions.sentences():
                facts = trace.facts
                trace = replace(
                    trace, facts={**facts, "unmeasured": [*facts.get("unmeasured", ()), *left_out]}
                )
    trace = say_lost(trace, kept)
    subject, seconds = name or type(model).__name__, time.perf_counter() - started
    return Diagnosis(findings, trace, rounds.passed, rounds.not_applicable, rounds.skipped, subject, seconds)


def _measure(specimen: Specimen, kept: Kept, notes: Sequence[str]) -> Trace:
    """The trace, with how the batch was read among what was assumed; a crash says it too."""
    try:
        trace = measure(specimen, kept)
    except ModelCrash as crash:
        if notes:
            crash.args = (f"{crash} (how the batch was read: {'; '.join(notes)})",)
        raise
    if not notes:
        return trace
    return replace(trace, facts={**trace.facts, "assumptions": [*notes, *trace.facts.get("assumptions", ())]})


def require_optimizer(optimizer: Any) -> None:
    """Refuse what is not a torch optimizer by a CheckError."""
    if not isinstance(getattr(optimizer, "param_groups", None), list):
        raise CheckError(
            f"optimizer is a {type(optimizer).__name__}, not a torch optimizer; pass the optimizer itself"
        )


def assert_healthy(
    model: Any, batch: Any, loss: Any = None, *, fail_on: str = "warning", **options: Any
) -> Diagnosis:
    """The diagnosis of a healthy model; AssertionError with the report from `fail_on` upwards.

    `options` are those of `check`. ValueError names an unknown level.
    """
    if fail_on not in SEVERITIES:
        raise ValueError(f"fail_on is {fail_on!r}; use one of {', '.join(SEVERITIES)}")
    diagnosis = check(model, batch, loss, **options)
    if diagnosis.at_least(fail_on):
        raise AssertionError(f"\n{locate(diagnosis, model, loss)}")
    return diagnosis
