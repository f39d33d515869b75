"""The optimizer's steps are too short: the weights do not move, and the loss does not fall.

Why it harms

A training whose steps change the weights by a millionth,

    ||dW|| / ||W|| < 1e-6,

needs a million steps to get anywhere. It looks like a vanished gradient, and may be one; or the
rate is zero, decayed away, or in the wrong unit.

An example

    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9)

How it is measured

The ratio of what a step changed to what was there, of weights that are read in turn at the
steps of a watched training. Two kinds of short: nothing moves, and the loss does not fall; or
the ratio is small, the loss has hardly fallen in MANY steps, and the gradient of the same
weights still points the same way (cosine `agree`), so that longer steps would go on downhill. A
run that has converged is no fault, nor is a gradient of exactly zero, which no rate would mend, nor
a loss that is in the data (targets that are reached but for their noise, a constant on top).
Of Adam and its like the size of each layer's gradient is followed against the epsilon in the
denominator: below it the steps shrink with the gradient, so a gradient on its way there is a note
with the steps that are left; why it shrinks is for other rules to say.

Limits

    least = 1e-06    of the weights a step; about 0.001 is usual (Karpathy 2019), so it is a
                     thousandth of that: a million steps to move by a weight
    limit = 0.0001   of the weights a step: a tenth of the usual, ten thousand steps to move by
                     a weight
    agree = 0.3      cosine of gradients of the same weights, median of the last ones; at the floor
                     of a loss, noise makes it 0, in a run that bounces it is negative
    READ = 16        readings of weights, of which the median is taken
    MANY = 100       steps in which the loss has hardly fallen, for `limit`
    FALL = 0.1       of the first loss: a larger fall is progress
    EDGE = 10        steps at each end whose median is the loss there
    SPAN = 20        steps watched, before which it is too early to say
    FELL = 100       times smaller gradients than at the first steps: the run has converged
    START = 5        first steps, of which the largest gradient is taken
    SOLVED = 0.001   of the first loss: so has such a run
    USUAL = 0.001    of the weights a step, which the estimate of the right rate aims at
    GROWN = 2        times the usual rate of the run: above it the rate is on its way up
    BELOW = 0.001    of the highest rate: a rate that has died early is another fault (OPT006)

Remedies

A larger learning rate (advice). If the gradient itself is tiny, `unvanish check` says why.

When it is wrong

Fine-tuning with a rate that small on purpose.

References: Karpathy 2019 (a recipe: about 1e-3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _converged, _history, _learning, _places, _trend
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import SLOW

NEEDS = ("history",)
AT_ONCE = True
READ, MANY, FALL, EDGE = 16, 100, 0.1, 10
SPAN = 20  # steps
FELL, START, SOLVED = 100, 5, 1e-3
BELOW, GROWN = 1e-3, 2
USUAL = 1e-3


def check(trace: Trace, *, limit: float = 1e-4, least: float = 1e-6, agree: float = 0.3) -> Iterable[Fault]:
    """One fault with the usual ratio of a step to the weights."""
    taken = _history.read_steps(trace, "step")
    change, gradient = _history.read_steps(trace, "update_log"), _history.read_steps(trace, "norm_log")
    known = change[~np.isnan(change)][-READ:]
    weights = _history.find_weights(trace)
    if len(known) < READ or len(taken) < SPAN:
        if any(trace.sites[i].facts.get("epsilon") for i in weights):
            return _foresee(trace, weights)
        raise NotApplicable(f"fewer than {READ} readings of weights, or {SPAN} steps")
    ratio, loss = math.exp(float(np.median(known))), _history.read_steps(trace, "loss")
    gradient = gradient[~np.isnan(gradient)]
    still = _history.read_steps(trace, "still")
    stood = still[change == -math.inf][-READ:]
    if ratio == 0 and np.isfinite(still).any() and not np.isfinite(stood).any():
        return []  # the weights that were read get no gradient any more, so it is no matter of the rate
    norm = next((float(g) for g in gradient[::-1] if not math.isnan(g)), math.nan)
    ended = _has_ended(trace, loss) or _converged.is_flat(trace)
    if norm == -math.inf or ended or not _is_alive(trace):
        return []
    turns = _history.read_steps(trace, "agree")
    steady = float(np.median(turns[np.isfinite(turns)][-READ:])) if np.isfinite(turns).any() else math.nan
    nothing = math.exp(float(np.max(known))) < least and not _learning.falls(loss)
    slow = ratio < limit and steady > agree and len(taken) >= MANY and not _progresses(trace, loss)
    if not (nothing or slow):
        return _foresee(trace, weights)
    rate = float(_history.read_steps(trace, "lr")[-1])
    cause = f"a step changes the weights by {ratio:.1e} of them, and the loss hardly falls"
    if slow and not nothing:
        cause += (
            f" in {len(taken)} steps, though the gradient keeps its direction: a rate of {rate:.2g} is about "
            f"{USUAL / max(ratio, USUAL * SOLVED**2):.0f} times too small"
        )
    if ratio == 0:
        cause = "no weight changes at all: the steps are below the last digit of the weights"
    return [
        Fault(
            severity="warning",
            cause=cause,
            sites=_places.label(trace, weights[: _places.WORST]),
            evidence=(
                Evidence("update / weight, median of the last readings", ratio, limit=f"> {limit:g}"),
                Evidence("cosine of gradients of the same weights", steady, limit=f"< {agree:g}"),
                Evidence("learning rate", rate),
                Evidence("gradient norm", norm, unit="ln"),
            ),
            remedies=(
                Remedy(
                    "raise-learning-rate",
                    (),
                    "steps of about a thousandth of the weights are usual",
                    safety="advice",
                ),
            ),
            direction="vanishing",
            tier=SLOW,
        )
    ]


def _progresses(trace: Trace, loss: _history.Floats) -> bool:
    """Whether the loss fell by more than a little; True if it is not known."""
    known, start = loss[np.isfinite(loss)], np.asarray(trace.facts.get("start", ()), np.float64)
    if len(known) < MANY // 2:
        return True
    first = float(np.median(start[:EDGE])) if len(start) else float(np.median(known[:EDGE]))
    return bool(np.median(known[-EDGE:]) < first - FALL * abs(first))


def _is_alive(trace: Trace) -> bool:
    """Whether the rate is neither a small part of what it was, which OPT006 judges, nor still growing."""
    rate = _history.read_steps(trace, "lr")
    known = rate[np.isfinite(rate)]
    if not len(known):
        return True
    return bool(BELOW * known.max() <= known[-1] <= GROWN * np.median(known) and known[-1] > 0)


def _foresee(trace: Trace, places: list[int]) -> list[Fault]:
    """A gradient that will be smaller than the optimizer's epsilon if it goes on as it does."""
    known = [i for i in places if trace.sites[i].facts.get("epsilon", 0.0) > 0]
    first = _trend.find_first({i: _follow_epsilon(trace, i) for i in known})
    if first is None or _converged.has_converged(trace):
        return []
    crossing, where = first.crossing, trace.sites[first.site].label
    return [
        Fault(
            severity="note",
            cause=f"the gradient of {where} shrinks, to {math.exp(crossing.now):.2g} times the optimizer's "
            f"epsilon so far: it reaches it {crossing.describe()}, and the steps shrink with it from then on",
            sites=_places.label(trace, first.sites),
            evidence=(
                Evidence("gradient / epsilon", math.exp(crossing.now), limit="> 1", site=where),
                Evidence("steps until it is at the limit", crossing.steps, site=where),
            ),
            remedies=(Remedy("lower-epsilon", (where,), "an epsilon far below the gradients", "advice"),),
            direction="vanishing",
            tier=SLOW,
        )
    ]


def _follow_epsilon(trace: Trace, site: int) -> _trend.LimitCrossing | None:
    """The crossing of ln(root mean square of the gradient / epsilon) and zero."""
    facts = trace.sites[site].facts
    logs = _history.read_looks(trace, [site], "gradient_log")[:, 0]
    size = logs - 0.5 * math.log(facts["numel"]) - math.log(facts["epsilon"])
    return _trend.find_crossing(_trend.read_looked(trace), size, 0.0)


def _has_ended(trace: Trace, loss: _history.Floats) -> bool:
    """Whether the gradient or the loss is a small part of what it was at the start."""
    norms = _history.read_steps(trace, "norm_log")
    known, finite = norms[np.isfinite(norms)], loss[np.isfinite(loss)]
    small = len(known) > 0 and known[-1] < known[:START].max() - math.log(FELL)
    return bool(small or (len(finite) > 0 and abs(finite[-1]) < SOLVED * abs(finite[0])))


def sick() -> Case:
    """SGD with a rate of 1e-4."""
    return _case(1e-4)


def healthy() -> Case:
    """The same with a rate of 0.05."""
    return _case(0.05)


def _case(rate: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        x = torch.randn(256, 16)
        batch = x, (x @ torch.randn(16, 4)).argmax(1)
    training = _history.rehearse_with(optimizer=lambda m: torch.optim.SGD(m.parameters(), rate), steps=120)
    return Case(net, batch, nn.CrossEntropyLoss(), training, story=f"SGD with a rate of {rate:g}")
