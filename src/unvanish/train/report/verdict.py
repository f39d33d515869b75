"""What a run came to, in sentences: the gradient, the steps, what to expect of so few.

Notable: a run that was too short to learn is told so, instead of leaving its user to guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unvanish.core.diagnosis import Diagnosis, Finding

if TYPE_CHECKING:
    from unvanish.train.trainer import Trainer

FEW = 100  # optimizer steps below which little is to be expected


def verdict(trainer: Trainer) -> str:
    """The sentences at the end of a run."""
    record = trainer.record
    parts = [gradient(trainer.watch)] if trainer.watch is not None else []
    if record.step < FEW:
        parts.append(f"only {record.step} optimizer steps; {trainer.task.expect}")
    if record.skipped:
        parts.append(f"{record.skipped} of {record.step} steps had no finite gradient and were left out")
    parts += clipping(trainer)
    return "; ".join(parts)


def clipping(trainer: Trainer) -> list[str]:
    """How many steps were clipped, where it is most of them; of a detector always, for it is its recipe."""
    record, guard = trainer.record, trainer.guard
    share = guard.clipped / max(1, record.step)
    norms = [row["gradient"] for row in record.rows if math.isfinite(row["gradient"])]
    if trainer.task.summed and guard.limit and norms:
        middle = sorted(norms)[len(norms) // 2]
        return [f"{share:.0%} of the steps were clipped to {guard.limit:g}, from a norm of {middle:.3g}"]
    return [f"{share:.0%} of the steps were clipped"] if record.step >= FEW and share > 0.9 else []


def gradient(watch: Any) -> str:
    """The watch's verdict in a clause."""
    found: Sequence[Finding] = [f for f in watch.findings if f.severity != "note"]
    looks = f"{watch.pace.looks} look{'s' * (watch.pace.looks != 1)} in {watch.steps} steps"
    if not found:
        return f"the gradient was healthy at {looks}"
    first = found[0]
    more = f", and {', '.join(f.code for f in found[1:])}" if found[1:] else ""
    return f"{first.severity}[{first.code}] {first.name}: {first.cause}{more} ({looks})"


def outlook(said: Diagnosis) -> str:
    """What a forecast of the network says, in a line."""
    found = said.at_least("warning")
    if not found:
        return "forecast: the gradient reaches every layer"
    first = found[0]
    more = f"; also {', '.join(f.code for f in found[1:])}" if found[1:] else ""
    return f"forecast: {first.severity}[{first.code}] {first.name}: {first.cause}{more}"


def diverged(trainer: Trainer) -> str:
    """Why a run without finite gradients is ended."""
    record, watch = trainer.record, trainer.watch
    found = [f for f in watch.findings if f.severity != "note"] if watch is not None else []
    said = f"; {found[0].code} {found[0].name}: {found[0].cause}" if found else ""
    return (
        f"{record.streak} steps in a row had no finite gradient, the last one step {record.step} in epoch"
        f" {record.epoch + 1}{said}; try a lower lr0 (it is {trainer.rate:g}), clip=1 or amp=no"
    )
