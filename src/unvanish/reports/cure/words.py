"""What a treatment comes to, in words: shared by its text and its page."""

from __future__ import annotations

import math
from itertools import groupby

from unvanish.core.cured import Cured, Proof
from unvanish.core.diagnosis import Remedy
from unvanish.reports.parts.words import clean, decades, listed, number, plural


def verdict(cured: Cured) -> tuple[str, str]:
    """(a word, a sentence)."""
    if cured.before.healthy:
        return "healthy", cured.reason or "nothing is wrong on this batch"
    count = len(steps(cured))
    if cured.success:
        return "cured", f"{plural(count, 'remedy') if count == 1 else f'{count} remedies'}, proven on a copy"
    if cured.prescription:
        return "better", cured.reason
    return "not cured", cured.reason


def steps(cured: Cured) -> list[tuple[Remedy, list[Remedy]]]:
    """The prescription by cures: the first of each run of the same cure, and all of that run."""
    runs = [list(group) for _, group in groupby(cured.prescription.remedies, key=lambda r: r.cure)]
    return [(run[0], run) for run in runs]


def settings(remedy: Remedy) -> str:
    """Settings in one line; lists of names are counted."""
    parts = []
    for key, value in remedy.parameters.items():
        told = plural(len(value), "name") if isinstance(value, (list, tuple)) else number(value)
        parts.append(f"{key} = {told}")
    return ", ".join(parts)


def targets(remedy: Remedy) -> str:
    """Where it is applied."""
    return listed(remedy.targets, 4) if remedy.targets else "the whole model"


def rules_line(proof: Proof) -> str:
    """What the rules say now."""
    gone = [c for c in proof.codes_before if c not in proof.codes_after]
    left = (
        f"left: {', '.join(proof.codes_after)}"
        if proof.codes_after
        else "nothing at or above a warning is left"
    )
    return f"{', '.join(gone) or 'none'} gone; {left}"


def total_line(proof: Proof) -> str:
    """What became of the gradient between the hidden layers, or an empty text."""
    if math.isnan(proof.total_before) and math.isnan(proof.total_after):
        return ""
    before, after = decades(proof.total_before), decades(proof.total_after)
    return f"{before} becomes {after} decades, last hidden layer to first"


def training_line(proof: Proof) -> str:
    """How the short training went, or an empty text."""
    before, after = proof.losses_before, proof.losses_after
    if not before or not after:
        return ""
    count = max(len(before), len(after)) - 1
    told = (
        f"{plural(count, 'step')} of Adam on this batch, equal seeds: "
        f"loss {_span(before)} before, {_span(after)} after"
    )
    return told if proof.comparable else f"{told} (another loss: compare the shares)"


def _span(losses: tuple[float, ...]) -> str:
    last = losses[-1]
    return (
        f"{number(losses[0])} to {number(last)}"
        if math.isfinite(last)
        else f"not finite from step {len(losses) - 1}"
    )


def name(cured: Cured) -> str:
    """What was treated."""
    return clean(cured.before.subject)
