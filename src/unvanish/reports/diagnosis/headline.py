"""The verdict in one word and one sentence, read from the worst finding and the ledger's total.

Notable:
- This is the only place that decides the word and the sentence; text, JSON and HTML read its `Headline`.
- The word follows from the findings: with a finding it is never "healthy", and without one it is either that
  or "unmeasured".
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from unvanish.core.diagnosis import SEVERITIES, Diagnosis, Finding, Severity
from unvanish.core.ledger import Ledger, ledger
from unvanish.reports.parts.series import TimeSeries, read_times
from unvanish.reports.parts.words import plural, round_decades

WORDS = ("healthy", "vanishing", "exploding", "blocked", "faulty", "crashed", "unmeasured")
PHRASES = {
    "vanishing": "the gradient vanishes",
    "exploding": "the gradient explodes",
    "blocked": "the gradient is blocked",
    "none": "the gradient flows, but something is wrong",
}
CLEARLY = (
    1.0  # decades from which the sentence says "it loses ..."; display only, verdicts come from the rules
)


@dataclass(frozen=True)
class Headline:
    """A word of `WORDS`, a sentence, and the total through the depth in decades (None without a depth axis).

    `severity` is that of the worst finding, None if nothing is at or above a warning. `time` is the
    recurrence that the verdict is about, None if it is about the depth.
    """

    word: str
    sentence: str
    total: float | None
    severity: Severity | None = None
    time: TimeSeries | None = None


def find_ledger(diagnosis: Diagnosis) -> Ledger | None:
    """The ledger of the main depth axis; None without an axis or a measurement."""
    trace = diagnosis.trace
    return ledger(trace) if trace.values.size else None


def write_headline(diagnosis: Diagnosis, book: Ledger | None) -> Headline:
    """What a reader must know first; `book` is the ledger from `find_ledger`."""
    total = book.total if book is not None and book.rows else None
    worst = next(iter(diagnosis.at_least("warning")), None)
    severity = worst.severity if worst is not None else None
    if diagnosis.trace.facts.get("crash"):
        sentence = "the model crashed; the report covers what ran before"
        return Headline("crashed", sentence, total, severity)
    if worst is None:
        return _without_faults(diagnosis, total)
    word = {"none": "faulty"}.get(worst.direction, worst.direction)
    if worst.code.startswith("REC"):
        time = max(read_times(diagnosis.trace), key=lambda t: abs(np.nan_to_num(t.total)), default=None)
        return Headline(word, _through_time(worst, time, total), total, severity, time)
    if diagnosis.trace.facts.get("live") and not _is_in_depth(worst, total):
        return Headline("faulty", f"the training goes wrong: {worst.code} {worst.name}", None, severity)
    return Headline(word, _through_depth(worst, total), total, severity)


def name_verb(diagnosis: Diagnosis) -> str:
    """The verb that made it."""
    facts = diagnosis.trace.facts
    return "forecast" if facts.get("predicted") else "watch" if facts.get("live") else "check"


def describe_total(total: float) -> str:
    """The total as a phrase: `-21.4 decades between the loss and the input`."""
    if math.isnan(total):
        return "the gradient is not a number between the loss and the input"
    if total == -math.inf:
        return "no gradient at all reaches the input"
    if total == math.inf:
        return "the gradient is infinite before the input"
    return f"{round_decades(total)} decades between the loss and the input"


def describe_ratio(total: float, ends: tuple[str, str] = ("input", "loss")) -> str:
    """The total as a ratio, `40 times weaker at the input than at the loss`; empty near 1 and at infinity."""
    if not math.isfinite(total) or abs(total) < 0.5:
        return ""
    if abs(total) < 3:
        times = f"{10 ** abs(total):.3g}"
    else:
        exponent = math.floor(abs(total))
        times = f"{10 ** (abs(total) - exponent):.1f}e{exponent}"
    return f"{times} times {'weaker' if total < 0 else 'stronger'} at the {ends[0]} than at the {ends[1]}"


def count_findings(diagnosis: Diagnosis) -> list[str]:
    """`["2 errors", "1 warning"]`: top-level findings that count, by severity, the worst first."""
    tally = Counter(f.severity for f in diagnosis.counted("note"))
    return [plural(tally[s], s) for s in reversed(SEVERITIES) if tally[s]]


def _without_faults(diagnosis: Diagnosis, total: float | None) -> Headline:
    steps = len(diagnosis.trace.facts.get("history", {}).get("step", ()))
    if steps and not diagnosis.trace.values.size:
        return Headline("healthy", f"nothing wrong was seen in {steps} steps; no look was taken", total)
    if not diagnosis.trace.sites:
        return Headline("unmeasured", "nothing was measured, so nothing was judged", total)
    trace = diagnosis.trace
    logs = [trace.value(i, "gradient_log") for i in trace.where("parameter", reachable=True)]
    if logs and max(logs) == -math.inf:  # a note says why
        return Headline(
            "unmeasured", "nothing was judged: no parameter gets a gradient from a loss of 0", total
        )
    if total is None:
        return Headline("healthy", "healthy", total)
    if math.isfinite(total):
        return Headline("healthy", f"healthy: {describe_total(total)}", total)
    if trace.where("node", kills=True, kills_because="zero parameter"):
        why = "no gradient passes what starts at zero before the first step"
    elif silent := sum(log == -math.inf for log in logs):
        why = f"{silent} of {len(logs)} parameters get no gradient from this batch, nor does the input"
    else:
        why = "the gradient reaches every parameter, and none the input"
    return Headline("healthy", f"healthy: {why}", total)


def _through_depth(worst: Finding, total: float | None) -> str:
    phrase = PHRASES.get(worst.direction, PHRASES["none"])
    if total is None:
        return phrase
    if _is_in_depth(worst, total):
        if not math.isfinite(total):
            return f"{phrase}: {describe_total(total)}"
        return f"{phrase}: it {_describe_change(total)} between the loss and the input"
    return f"{phrase}; {describe_total(total)}"


def _is_in_depth(worst: Finding, total: float | None) -> bool:
    """Whether the total through the depth clearly shows what the finding says."""
    if total is None or worst.direction == "none":
        return False
    agrees = (total < 0) == (worst.direction in ("vanishing", "blocked"))
    return agrees and abs(total) >= CLEARLY


def _through_time(worst: Finding, time: TimeSeries | None, total: float | None) -> str:
    phrase = f"{PHRASES.get(worst.direction, PHRASES['none'])} through time"
    if time is not None and math.isfinite(time.total):
        phrase += f": it {_describe_change(time.total)} over {plural(len(time.steps) - 1, 'step')}"
    return phrase if total is None else f"{phrase}; through the depth {describe_total(total)}"


def _describe_change(total: float) -> str:
    return f"{'loses' if total < 0 else 'gains'} {round_decades(abs(total)).removeprefix('+')} decades"
