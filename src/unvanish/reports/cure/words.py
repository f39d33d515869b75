"""A cure in words, for its text and its page: the steps, the settings, the three lines of the proof."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from unvanish.core.cured import Attempt, Cured, Proof
from unvanish.core.diagnosis import Remedy
from unvanish.reports.parts.words import clean, decades, list_names, number, plural


def name_subject(cured: Cured) -> str:
    """The name of the model."""
    return clean(cured.before.subject)


def group_steps(cured: Cured) -> list[list[Remedy]]:
    """The prescription as steps: consecutive remedies of the same cure."""
    return [list(step) for _, step in groupby(cured.prescription.remedies, key=lambda r: r.cure)]


def list_failures(cured: Cured) -> list[Attempt]:
    """The attempts that did not become the prescription."""
    return [a for a in cured.attempts if a.result != "healed and proven"]


def describe_place(remedy: Remedy) -> str:
    """Targets and settings of a remedy in one line: `conv1, conv2; gain = 1`."""
    targets = list_names(remedy.targets, 4) if remedy.targets else "the whole model"
    settings = ", ".join(f"{key} = {_describe_value(value)}" for key, value in remedy.parameters.items())
    return f"{targets}; {settings}" if settings else targets


def describe_codes(codes: Sequence[str]) -> str:
    """The codes that were found, or "healthy"."""
    return ", ".join(codes) or "healthy"


def describe_rules(proof: Proof) -> str:
    """Which findings are gone, and which are left."""
    gone = [c for c in proof.codes_before if c not in proof.codes_after]
    left = ", ".join(proof.codes_after)
    rest = f"left: {left}" if left else "nothing at or above a warning is left"
    return f"{', '.join(gone) or 'none'} gone; {rest}"


def describe_totals(proof: Proof) -> str:
    """The gradient between the hidden layers, before and after; empty if it was not measured."""
    if math.isnan(proof.total_before) and math.isnan(proof.total_after):
        return ""
    before, after = decades(proof.total_before), decades(proof.total_after)
    return f"{before} becomes {after} decades, last hidden layer to first"


def describe_training(proof: Proof) -> str:
    """How the short training went; why there was none."""
    before, after = proof.losses_before, proof.losses_after
    if not before or not after:
        return "nothing was trained: the proof rests on the rules and the total"
    where = f"{plural(proof.unseen, 'sample')} it did not see" if proof.unseen else "this batch only"
    count = max(len(before), len(after)) - 1
    text = (
        f"{plural(count, 'step')}, equal seeds, judged on {where}: "
        f"loss {_describe_losses(before, proof)} before, {_describe_losses(after, proof)} after"
    )
    return text if proof.comparable else f"{text} (another loss: compare the shares)"


def _describe_value(value: object) -> str:
    """A setting; a list of names is counted."""
    return plural(len(value), "name") if isinstance(value, list | tuple) else number(value)


def _describe_losses(losses: tuple[float, ...], proof: Proof) -> str:
    if not math.isfinite(losses[-1]):
        return f"not finite from step {len(losses) - 1}"
    if proof.unseen:  # where it was lowest counts
        return f"{number(losses[0])} to {number(min(losses))} at best"
    return f"{number(losses[0])} to {number(losses[-1])}"
