"""What happened in a watched training, in the order of its steps: changes, losses of gradient, findings.

Notable:
- A learning rate that jumps is told, a schedule that glides is not: `JUMP` from a rate that was still, and
  `LEAP` from one that was moving.
- A tensor counts as frozen if the gradient it had in `LASTING` looks is missing in as many, or to the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.core.run_facts import HistoryFacts
from unvanish.core.trace import Trace
from unvanish.reports.parts.words import clean, list_names, plural
from unvanish.reports.run.curves import DECADE, measure_flow, write_power
from unvanish.reports.run.verdict import Spotted

JUMP, LEAP = 1.9, 9.0  # times the rate before
STILL = 3  # steps with the same rate before a jump
LASTING = 2  # looks
MOST = 12  # moments of a kind, at most
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """Something that happened at a step; `severity` is that of a finding, empty for a change."""

    step: int
    text: str
    severity: str = ""


def list_moments(
    history: HistoryFacts, trace: Trace, spotted: Sequence[Spotted], sessions: Sequence[Sequence[int]] = ()
) -> list[Moment]:
    """The first look, resumed sessions, changes of rate and of what learns, broken steps, findings."""
    steps = np.asarray(history.get("step", ()), np.float64)
    kinds = (
        _first_look(history, trace),
        (Moment(int(s[0]), "the run was continued") for s in sessions if len(steps) and s[0] > steps[0]),
        _rate_changes(steps, np.asarray(history.get("lr", ()), np.float64)),
        _broken(steps, history),
        _zero_gradients(steps, np.asarray(history.get("norm_log", ()), np.float64)),
        _frozen(trace, [int(s[0]) for s in sessions]),
        map(_tell, spotted),
    )
    found = [moment for kind in kinds for moment in _cap(list(kind))]
    return sorted(found, key=lambda m: m.step)


def _cap(moments: list[Moment]) -> list[Moment]:
    """The first `MOST` of a kind; the last of these says how many follow."""
    if len(moments) <= MOST:
        return moments
    shown, next_one = moments[: MOST - 1], moments[MOST - 1]
    text = f"{next_one.text}; and {len(moments) - MOST} more of the kind"
    return [*shown, Moment(next_one.step, text, next_one.severity)]


def _tell(spotted: Spotted) -> Moment:
    finding = spotted.finding
    until = f", until step {spotted.last}" if spotted.last > spotted.first else ""
    text = f"{finding.severity}[{clean(finding.code)}] {clean(finding.name)}{until}"
    return Moment(max(spotted.first, 0), text, finding.severity)


def _first_look(history: HistoryFacts, trace: Trace) -> Iterator[Moment]:
    looks = list(trace.facts.get("steps", ()))
    if not looks:
        return
    step = int(looks[0])
    at = np.flatnonzero(np.asarray(history.get("step", ()), np.float64) == step)
    parts = [f"first look, at {plural(len(trace.sites), 'place')}"]
    if len(at):
        loss, norm = history["loss"][at[0]], history["norm_log"][at[0]]
        parts += [f"loss {loss:.4g}"] if not math.isnan(loss) else []
        parts += [f"gradient {write_power(norm / DECADE)}"] if not math.isnan(norm) else []
    gains = measure_flow(trace)
    if len(gains) and not math.isnan(gains[0]):
        parts.append(f"{gains[0] + 0.0:+.1f} decades from the loss to the input")
    yield Moment(step, ", ".join(parts))


def _rate_changes(steps: Floats, rates: Floats) -> Iterator[Moment]:
    if len(rates) < 2:
        return
    before, now = rates[:-1], rates[1:]
    with np.errstate(all="ignore"):
        times = np.maximum(before, now) / np.minimum(before, now)  # inf from or to 0, NaN if unknown
    same = np.concatenate([np.zeros(STILL - 1, bool), before == now])
    still = np.all([same[k : k + len(now)] for k in range(STILL - 1)], axis=0)
    for i in np.flatnonzero((times >= np.where(still, JUMP, LEAP)) & ((before > 0) | still)):
        yield Moment(int(steps[i + 1]), f"the learning rate went from {before[i]:.4g} to {now[i]:.4g}")


def _broken(steps: Floats, history: HistoryFacts) -> Iterator[Moment]:
    skipped = np.asarray(history.get("skipped", np.zeros(len(steps))), np.float64) == 1
    broken = np.asarray(history.get("finite", np.ones(len(steps))), np.float64) == 0
    norms = np.asarray(history.get("norm_log", np.zeros(len(steps))), np.float64)
    for first, last in _find_spans(broken & (norms != -math.inf)):
        count = plural(last - first + 1, "step")
        left = int(skipped[first : last + 1].sum())
        more = f", {left} of them left out by the loss scaler" if left else ""
        yield Moment(int(steps[first]), f"{count} with a gradient that is not finite{more}")


def _zero_gradients(steps: Floats, norms: Floats) -> Iterator[Moment]:
    for first, last in _find_spans(norms == -math.inf):
        until = (
            "to the end"
            if last == len(norms) - 1 and last > first
            else f"in {plural(last - first + 1, 'step')}"
        )
        yield Moment(int(steps[first]), f"the gradient is exactly zero, {until}")


def _frozen(trace: Trace, starts: Sequence[int]) -> Iterator[Moment]:
    """Tensors that lose their gradient for good between two looks, and that get one again."""
    if "gradient_log" not in trace.statistics or not trace.values.size:
        return
    looks = list(trace.facts.get("steps", ()))
    places = list(trace.where("parameter"))
    there = ~np.isnan(trace.values[:, places, trace.statistics.index("gradient_log")])
    for look in range(1, len(looks)):
        if not there[look - 1].any() or not there[look].any():  # nothing was read, or of other sites
            continue
        ends = [i for i in range(look + 1, len(looks)) if any(looks[i - 1] < s <= looks[i] for s in starts)]
        after = there[look : min([look + LASTING, *ends])]
        before = there[max(0, look - LASTING) : look]
        for verb, changed in (
            ("no longer get", before & ~there[look]),
            ("get", ~before & there[look]),
        ):
            lasting = changed.all(0) & (after == there[look]).all(0)
            names = [trace.sites[i].label for i, yes in zip(places, lasting, strict=True) if yes]
            if names:
                count = f"{len(names)} of {plural(len(places), 'tensor')} {verb} a gradient"
                yield Moment(
                    int(looks[look]), f"{count}, unlike at step {looks[look - 1]}: {list_names(names)}"
                )


def _find_spans(marks: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last place of each stretch that is marked."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
