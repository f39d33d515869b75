"""The verdict on a run, in sentences: the gradient, the steps, what to expect of a short run.

Notable: a run that was too short to learn says so, instead of leaving its user to guess.
"""

from __future__ import annotations

import math

from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.train.loop.run import TrainingRun

FEW = 100  # optimizer steps below which little is to be expected


def describe_run(run: TrainingRun) -> str:
    """The sentences at the end of a run."""
    record = run.record
    parts = [describe_gradient(run)] if run.watch is not None else []
    if record.step < FEW:
        parts.append(f"only {record.step} optimizer steps; {run.request.task.expect}")
    if record.skipped:
        parts.append(f"{record.skipped} of {record.step} steps had no finite gradient and were skipped")
    return "; ".join([*parts, *describe_clipping(run)])


def describe_clipping(run: TrainingRun) -> list[str]:
    """The share of steps that were clipped, if it is most of them; of a detector always (its recipe)."""
    record, guard = run.record, run.engine.guard
    share = guard.clipped / max(1, record.step)
    norms = [row["gradient"] for row in record.rows if math.isfinite(row["gradient"])]
    if run.request.task.summed and guard.limit and norms:
        middle = sorted(norms)[len(norms) // 2]
        return [f"{share:.0%} of the steps were clipped to {guard.limit:g}, from a norm of {middle:.3g}"]
    return [f"{share:.0%} of the steps were clipped"] if record.step >= FEW and share > 0.9 else []


def describe_gradient(run: TrainingRun) -> str:
    """The watch's verdict in a clause."""
    watch, found = run.watch, run.findings
    looks = f"{watch.pace.looks} look{'s' * (watch.pace.looks != 1)} in {watch.steps} steps"
    if not found:
        return f"the gradient was healthy at {looks}"
    more = f", and {', '.join(f.code for f in found[1:])}" if found[1:] else ""
    return f"{_headline(found[0])}{more} ({looks})"


def describe_forecast(diagnosis: Diagnosis) -> str:
    """A forecast of the network in a line."""
    found = diagnosis.at_least("warning")
    if not found:
        return "forecast: the gradient reaches every layer"
    more = f"; also {', '.join(f.code for f in found[1:])}" if found[1:] else ""
    return f"forecast: {_headline(found[0])}{more}"


def explain_divergence(run: TrainingRun) -> str:
    """Why a run without finite gradients is ended, and what to try."""
    record, found = run.record, run.findings
    cause = f"; {found[0].code} {found[0].name}: {found[0].cause}" if found else ""
    return (
        f"{record.streak} steps in a row had no finite gradient, the last one step {record.step} in epoch"
        f" {record.epoch + 1}{cause}; try a lower lr0 (it is {run.rates.rate:g}), clip=1 or amp=no"
    )


def _headline(finding: Finding) -> str:
    return f"{finding.severity}[{finding.code}] {finding.name}: {finding.cause}"
