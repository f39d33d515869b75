"""The verdict in one word and one sentence, read from the worst finding and the ledger's total."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from unvanish.core.diagnosis import SEVERITIES, Diagnosis, Finding
from unvanish.core.ledger import Ledger, ledger
from unvanish.reports.parts.series import Time, times
from unvanish.reports.parts.words import plural, rounded

PHRASES = {
    "vanishing": "the gradient vanishes",
    "exploding": "the gradient explodes",
    "blocked": "the gradient is blocked",
    "none": "the gradient flows, but something is wrong",
}
CLEARLY = 1.0  # decades from which "it loses ..." is said; display only, verdicts come from the rules


@dataclass(frozen=True)
class Headline:
    """A word for a badge, a sentence, and the total through the depth in decades (None without a depth axis).

    `time` is the recurrence that the verdict is about, None where it is about the depth.
    """

    word: str
    sentence: str
    total: float | None
    time: Time | None = None


def account(diagnosis: Diagnosis) -> Ledger | None:
    """The ledger of the main depth axis, or None where there is none or nothing was measured."""
    trace = diagnosis.trace
    return ledger(trace) if trace.values.size else None


def headline(diagnosis: Diagnosis, book: Ledger | None) -> Headline:
    """What a reader must know first; `book` is the ledger from `account`."""
    total = book.total if book is not None and book.rows else None
    if diagnosis.trace.facts.get("crash"):
        return Headline("crashed", "the model crashed; the report covers what ran before", total)
    if diagnosis.healthy and not diagnosis.trace.sites:
        return Headline("unmeasured", "nothing was measured, so nothing was judged", total)
    if diagnosis.healthy:
        if total == -math.inf:
            return Headline("blocked", across(total), total)
        return Headline("healthy", f"healthy: {across(total)}" if total is not None else "healthy", total)
    worst = diagnosis.at_least("warning")[0]
    word = {"none": "faulty"}.get(worst.direction, worst.direction)
    if worst.code.startswith("REC"):
        time = max(times(diagnosis.trace), key=lambda t: abs(np.nan_to_num(t.total)), default=None)
        return Headline(word, _through_time(worst, time, total), total, time)
    return Headline(word, _sentence(worst, total), total)


def across(total: float) -> str:
    """The total as a phrase: `-21.4 decades between the loss and the input`."""
    if math.isnan(total):
        return "the gradient is not a number between the loss and the input"
    if total == -math.inf:
        return "no gradient at all reaches the input"
    if total == math.inf:
        return "the gradient is infinite before the input"
    return f"{rounded(total)} decades between the loss and the input"


def remaining(total: float, ends: tuple[str, str] = ("input", "loss")) -> str:
    """How much weaker or stronger the gradient is at the far end, for people who do not think in decades."""
    if not math.isfinite(total) or abs(total) < 0.5:
        return ""
    if abs(total) < 3:
        times = f"{10 ** abs(total):.3g}"
    else:
        exponent = math.floor(abs(total))
        times = f"{10 ** (abs(total) - exponent):.1f}e{exponent}"
    return f"{times} times {'weaker' if total < 0 else 'stronger'} at the {ends[0]} than at the {ends[1]}"


def counts(diagnosis: Diagnosis) -> list[str]:
    """`["2 errors", "1 warning"]`: top-level findings by severity, the worst first."""
    tally = Counter(f.severity for f in diagnosis.findings)
    return [plural(tally[s], s) for s in reversed(SEVERITIES) if tally[s]]


def _sentence(worst: Finding, total: float | None) -> str:
    phrase = PHRASES.get(worst.direction, PHRASES["none"])
    if total is None:
        return phrase
    agrees = (total < 0) == (worst.direction in ("vanishing", "blocked"))
    if worst.direction != "none" and agrees and abs(total) >= CLEARLY:
        if not math.isfinite(total):
            return f"{phrase}: {across(total)}"
        return f"{phrase}: it {_moves(total)} between the loss and the input"
    return f"{phrase}; {across(total)}"


def _through_time(worst: Finding, time: Time | None, total: float | None) -> str:
    phrase = f"{PHRASES.get(worst.direction, PHRASES['none'])} through time"
    if time is not None and math.isfinite(time.total):
        phrase += f": it {_moves(time.total)} over {plural(len(time.steps) - 1, 'step')}"
    return phrase if total is None else f"{phrase}; through the depth {across(total)}"


def _moves(total: float) -> str:
    return f"{'loses' if total < 0 else 'gains'} {rounded(abs(total)).removeprefix('+')} decades"
