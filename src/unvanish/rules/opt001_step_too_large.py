"""The optimizer's steps are too long: they change the weights by much more than before, or by too
much at all.

Why it harms

A step is a first-order promise, good while the gradient does not change on the way. If

    ||dW|| / ||W||

is a tenth or more at every step, the network is another one each time; the loss rises, units die,
and what was learned is lost.

An example

    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    optimizer.param_groups[0]["lr"] *= 10        # in the middle of the run

How it is measured

The ratio of what a step changed to what was there, for each weight matrix, at the looks of a
watched training. A fault is a jump: at AFTER looks in a row the median over the layers is `jump`
times above the looks before, and it is new: FRESH times above all that the run ever had, or at a
learning rate it never had. A schedule's restart to an earlier rate is none. Or it is a level: above
`limit` at the last looks, while the loss is above that of the looks before. If the loss rose
clearly, it is an error.

Limits

    limit = 0.1    of the weights a step; about 0.001 is usual (Karpathy 2019). At a tenth, ten
                   steps replace the weights
    jump = 3       times the largest of the looks before: a warm-up or a restart climbs more
                   slowly
    FRESH = 1.5    times the largest ratio or rate so far: new, and not noise about the old
    BEFORE = 5     looks that a jump needs before it
    NEAR = 8       looks that it is compared with
    AFTER = 3      looks that must agree
    RECENT = 30    looks in which a jump is still reported
    SETTLED = 20   steps before a jump counts: first steps are long, as weights are small
    RATES = 20     steps whose median is the learning rate before
    WORSE = 1      deviations by which the loss rose, for a level
    ROSE = 3       deviations: the loss rose clearly
    WINDOW = 10    steps at least that the loss is compared with
    LEAST = 5      of these must be known, and two after them
    LEVEL = 0.02   of the loss is its least deviation: a smaller move is no rise
    TINY = 1e-12   is its least deviation if the loss is 0
    MOST = 5       nats beyond the limit that count: an order, no limit

Remedies

A smaller learning rate, or warm-up towards the larger one (advice). Clip the outliers in the run's
own history (exact).

When it is wrong

Weights that start at or near zero move by large ratios at first; schedules that jump to a rate
the run never had, on purpose.

References: You et al. 2017 (LARS); Karpathy 2019 (a recipe: about 1e-3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _history, _places
from unvanish.rules._fault import Fault
from unvanish.rules._history import Floats
from unvanish.rules._scatter import measure_scatter
from unvanish.rules._tiers import STEPS

NEEDS = ("history",)
AT_ONCE = True
EXPLAINS = ("OPT003", "ACT003")
FRESH = 1.5
BEFORE, NEAR, AFTER, RECENT = 5, 8, 3, 30  # looks
SETTLED, RATES = 20, 20  # steps
WORSE, ROSE = 1, 3  # deviations of the loss
WINDOW, LEAST, LEVEL = 10, 5, 0.02
TINY = 1e-12  # no division by zero
MOST = 5.0  # nats


def check(trace: Trace, *, limit: float = 0.1, jump: float = 3.0) -> Iterable[Fault]:
    """One fault with the ratio, and since when."""
    _history.read_steps(trace, "step")
    places = _history.find_weights(trace)
    ratio = np.exp(_history.take_medians(_history.read_looks(trace, places, "update_log")))
    known = np.flatnonzero(np.isfinite(ratio))
    if len(known) < AFTER:
        raise NotApplicable("fewer than three looks at a step")
    ratio, at = ratio[known], np.asarray(trace.facts["steps"])[known]
    start = _find_jump(ratio, at, _highest_rates(trace, at), jump, _past_ratio(trace, places))
    jumped = start is not None
    if start is None:
        start = len(ratio) - AFTER
        if not (np.min(ratio[start:]) > limit and _loss_rise(trace, int(at[start])) > WORSE):
            return []
    rise = _loss_rise(trace, int(at[start]))
    now = float(np.median(ratio[start : start + AFTER]))
    before = float(np.median(ratio[max(0, start - NEAR) : start])) if start else math.nan
    cause = f"each step changes the weights by {now:.1%}"
    if jumped:
        cause += f", {now / before:.1f} times as much as just before step {at[start]}"
    latest = _history.read_looks(trace, places, "update_log")[known[-1]]
    order = np.argsort(-np.where(np.isfinite(latest), latest, -math.inf))[: _places.WORST]
    worst = [(trace.sites[places[i]].label, math.exp(latest[i])) for i in order]
    return [
        Fault(
            severity="error" if rise > ROSE else "warning",
            cause=cause
            + _describe_rates(trace, int(at[start]))
            + (", and the loss rose" if rise > ROSE else ""),
            sites=tuple(label for label, _ in worst),
            evidence=(
                Evidence("update / weight, median over layers", now, limit=f"< {limit:g}"),
                Evidence("the same before", before),
                Evidence("loss against before", rise, unit="deviations"),
                *(Evidence("update / weight", size, site=label) for label, size in worst[: _places.SHOWN]),
            ),
            remedies=(
                Remedy("lower-learning-rate", (), "back to the rate that worked", safety="advice"),
                Remedy("warm-up", (), "let a larger rate come slowly", safety="advice"),
                Remedy("zclip", (), "bounds a step by the run's own history", safety="exact"),
            ),
            direction="exploding",
            tier=STEPS,
            size=min(MOST, math.log(max(now / limit, 1.0))),
        )
    ]


def _find_jump(ratio: Floats, at: Floats, rate: Floats, jump: float, past: float) -> int | None:
    """The last look that, with those after it, is far above those before, with a rate or a ratio the run
    never had.
    """
    for j in range(len(ratio) - AFTER, max(BEFORE, len(ratio) - RECENT) - 1, -1):
        low = ratio[j : j + AFTER].min()
        fresh = low > FRESH * max(past, ratio[:j].max()) or rate[j] > FRESH * rate[j - 1]
        if at[j] >= SETTLED and low > jump * ratio[max(0, j - NEAR) : j].max() and fresh:
            return j
    return None


def _past_ratio(trace: Trace, places: list[int]) -> float:
    """The largest ratio of the looks that are no longer kept, 0 if all are."""
    past = trace.facts.get("past")
    if past is None:
        return 0.0
    known = past[places, trace.statistics.index("update_log")]
    known = known[np.isfinite(known)]
    return math.exp(float(np.median(known))) if len(known) else 0.0


def _highest_rates(trace: Trace, at: Floats) -> Floats:
    """The highest learning rate up to each look."""
    taken, rate = _history.read_steps(trace, "step"), _history.read_steps(trace, "lr")
    highest: Floats = np.maximum.accumulate(np.where(np.isfinite(rate), rate, 0.0))
    return highest[np.clip(np.searchsorted(taken, at), 0, len(taken) - 1)]


def _loss_rise(trace: Trace, step: int) -> float:
    """By how much the loss from a step on is above that before it, in deviations; NaN if unknown."""
    loss = _history.read_steps(trace, "loss")
    place = int(np.searchsorted(_history.read_steps(trace, "step"), step))
    after = loss[place:]
    before = loss[max(0, place - max(WINDOW, len(after))) : place]
    after, before = after[np.isfinite(after)], before[np.isfinite(before)]
    if len(after) < 2 or len(before) < LEAST:
        return math.nan
    level = float(np.median(before))
    scatter = max(measure_scatter(before, level), LEVEL * abs(level), TINY)
    return (float(np.median(after)) - level) / scatter


def _describe_rates(trace: Trace, step: int) -> str:
    """The learning rate before a step and now, if it grew."""
    taken, rate = _history.read_steps(trace, "step"), _history.read_steps(trace, "lr")
    place = int(np.searchsorted(taken, step))
    earlier = rate[max(0, place - RATES) : max(0, place - 1)]
    if not len(earlier) or not rate[-1] > FRESH * np.nanmedian(earlier):
        return ""
    return f"; the learning rate went from {float(np.nanmedian(earlier)):.3g} to {float(rate[-1]):.3g}"


def sick() -> Case:
    """The learning rate jumps tenfold after 40 steps."""
    return _case(10.0)


def healthy() -> Case:
    """The same training, its rate lowered instead."""
    return _case(0.1)


def _case(factor: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
        x = torch.randn(256, 16)
        batch = x, (x @ torch.randn(16, 4)).argmax(1)

    def event(step: int, model: Any, optimizer: Any) -> None:
        if step == 40:
            optimizer.param_groups[0]["lr"] *= factor

    training = _history.rehearse_with(
        optimizer=lambda m: torch.optim.Adam(m.parameters(), 3e-3), steps=60, event=event
    )
    return Case(net, batch, nn.CrossEntropyLoss(), training, story=f"the rate times {factor:g} at step 40")
