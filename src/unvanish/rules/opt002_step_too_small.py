"""The optimizer's steps are too short: the weights do not move, and the loss does not fall.

Why it harms

A training whose steps change the weights by a millionth,

    ||dW|| / ||W|| < 1e-6,

needs a million steps to get anywhere. It looks like a vanished gradient, and may be one; or the
rate is zero, decayed away, or in the wrong unit.

An example

    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9)

How it is measured

The ratio of what a step changed to what was there, for each weight matrix, at the looks of a
watched training: all layers are below `limit` at the last looks, while the loss does not fall. A
run that has converged is no fault. Of Adam and its like the size of each layer's gradient is
followed against the epsilon in the denominator: below it the steps shrink with the gradient, so a
gradient on its way there is a note with the steps that are left; why it shrinks is for other rules
to say.

Limits

    limit = 1e-06    of the weights a step; about 0.001 is usual (Karpathy 2019), so it is a
                     thousandth of that: a million steps to move by a weight
    LEAST = 5        looks at which no layer moves
    SPAN = 20        steps watched, before which it is too early to say
    FELL = 100       times smaller gradients than at the first steps: the run has converged
    START = 5        first steps, of which the largest gradient is taken
    SOLVED = 0.001   of the first loss: so has such a run

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
LEAST = 5  # looks
SPAN = 20  # steps
FELL, START, SOLVED = 100, 5, 1e-3


def check(trace: Trace, *, limit: float = 1e-6) -> Iterable[Fault]:
    """One fault with the largest ratio of all layers."""
    taken = _history.read_steps(trace, "step")
    places = _history.find_weights(trace)
    logs = _history.read_looks(trace, places, "update_log")
    rows = np.flatnonzero(~np.isnan(logs).all(axis=1))[-LEAST:]
    if len(rows) < LEAST or len(taken) < SPAN:
        raise NotApplicable(f"fewer than {LEAST} looks at a step, or {SPAN} steps")
    largest = math.exp(float(np.nanmax(logs[rows])))
    loss = _history.read_steps(trace, "loss")
    if not largest < limit or _learning.falls(loss) or _has_ended(trace, loss):
        return _foresee(trace, places)
    rate = float(_history.read_steps(trace, "lr")[-1])
    cause = f"no step changes any weight by more than {largest:.1e} of it, and the loss does not fall"
    if largest == 0:
        cause = "no weight changes at all: the steps are below the last digit of the weights"
    if rate == 0:
        cause = "the learning rate is 0: no weight moves"
    return [
        Fault(
            severity="warning",
            cause=cause,
            sites=tuple(trace.sites[i].label for i in places[: _places.WORST]),
            evidence=(
                Evidence("update / weight, largest over layers", largest, limit=f"> {limit:g}"),
                Evidence("learning rate", rate),
                Evidence("gradient norm", float(_history.read_steps(trace, "norm_log")[-1]), unit="ln"),
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


def _foresee(trace: Trace, places: list[int]) -> list[Fault]:
    """A gradient that will be smaller than the optimizer's epsilon if it goes on as it does."""
    known = [i for i in places if trace.sites[i].facts.get("epsilon", 0.0) > 0]
    found = {i: c for i in known if (c := _follow_epsilon(trace, i)) is not None}
    if not found or _converged.has_converged(trace):
        return []
    worst = min(found, key=lambda i: found[i].steps)
    crossing, where = found[worst], trace.sites[worst].label
    return [
        Fault(
            severity="note",
            cause=f"the gradient of {where} shrinks, to {math.exp(crossing.now):.2g} times the optimizer's "
            f"epsilon so far: it reaches it {crossing.describe()}, and the steps shrink with it from then on",
            sites=_places.label(trace, list(found)),
            evidence=(
                Evidence("gradient / epsilon", math.exp(crossing.now), limit="> 1", site=where),
                Evidence("steps until it is at the limit", crossing.steps, site=where),
            ),
            remedies=(Remedy("lower-epsilon", (where,), "an epsilon far below the gradients", "advice"),),
            direction="vanishing",
            tier=SLOW,
        )
    ]


def _follow_epsilon(trace: Trace, site: int) -> _trend.Crossing | None:
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
    """SGD with a rate of 1e-9."""
    return _case(1e-9)


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
    training = _history.rehearse_with(optimizer=lambda m: torch.optim.SGD(m.parameters(), rate), steps=40)
    return Case(net, batch, nn.CrossEntropyLoss(), training, story=f"SGD with a rate of {rate:g}")
