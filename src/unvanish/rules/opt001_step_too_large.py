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
learning rate it never had; `jump` times, as long as the loss does not rise. A schedule's restart to
an earlier rate is none, nor are steps below HARMLESS while the loss does not rise. Or it is a
level: above `limit` at the last looks, while the loss is above that of the looks before. If the
loss rose clearly, it is an error.

Between looks the rates and losses of all steps tell the same: the rate went at once `jump`
times above all before, and the loss rose clearly with it. A single step is a fault if it
changed more than ALL of the weights and the loss stayed RUINED times higher. So are the first
steps of a run that together changed ALL of them within SOON steps, if the loss of most of them,
and of the last ones, is RUINED times higher than before and above the first one.

Steps above `limit` at the last AFTER looks, after the first SOON steps, are a note while the loss
does not rise: a network may lose all that it had, and its loss may be none the worse, as that of
a detector that finds nothing.

Limits

    limit = 0.1    of the weights a step; about 0.001 is usual (Karpathy 2019). At a tenth, ten
                   steps replace the weights
    jump = 3       times the largest of the looks before: a warm-up or a restart climbs more
                   slowly
    HARMLESS = 0.002  of the weights a step: twice the usual; a jump below it harms only if the
                   loss rises
    STAYED = 5     steps after which the loss is compared
    ALL = 1        of what was there: such a step leaves nothing of the weights
    RUINED = 1.5   times the loss before, for the steps after it
    SOON = 20      steps: ALL of the weights within them is a twentieth a step at least
    MANY = 10      steps whose median stands for those after; a batch or two may be hard
    FRESH = 1.5    times the largest ratio or rate so far: new, and not noise about the old. While
                   the loss does not rise, `jump` times: a restart after a warm-up that was cut
                   short by its schedule goes beyond all before, and does no harm
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
from dataclasses import dataclass
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
EXPLAINS = ("OPT003", "ACT003", "NUM001")
FRESH = 1.5
BEFORE, NEAR, AFTER, RECENT = 5, 8, 3, 30  # looks
SETTLED, RATES = 20, 20  # steps
WORSE, ROSE = 1, 3  # deviations of the loss
WINDOW, LEAST, LEVEL = 10, 5, 0.02
TINY = 1e-12  # no division by zero
MOST = 5.0  # nats
HARMLESS, STAYED, ALL, RUINED = 0.002, 5, 1, 1.5
SOON, MANY = 20, 10  # steps


def check(trace: Trace, *, limit: float = 0.1, jump: float = 3.0) -> Iterable[Fault]:
    """One fault with the ratio, and since when."""
    taken = _history.read_steps(trace, "step")
    places = _history.find_weights(trace)
    ratio = np.exp(_history.take_medians(_history.read_looks(trace, places, "update_log")))
    known = np.flatnonzero(np.isfinite(ratio))
    found = _judge_looks(trace, places, known, ratio[known], limit, jump) if len(known) >= AFTER else None
    found = found or _judge_rates(trace, taken, jump) or _judge_ruin(trace, taken)
    found = found or _judge_start(trace, taken)
    late = len(taken) > SOON and len(known) >= AFTER  # small first weights are soon outgrown
    if found is None and late and np.min(ratio[known[-AFTER:]]) > limit:
        found = _remark(trace, known, ratio[known])
    if found is None and len(known) < AFTER:
        raise NotApplicable("fewer than three looks at a step")
    return [] if found is None else [_tell(trace, places, known, found, limit, jump)]


@dataclass(frozen=True)
class _Steps:
    """Steps that are too long: since when, how long (of the weights), before that, and the loss's rise."""

    since: int
    now: float
    before: float
    rise: float
    cause: str
    factor: float = math.nan  # by which the learning rate grew at once
    noted: bool = False  # that they are long is all that is known


def _judge_looks(
    trace: Trace, places: list[int], known: Any, ratio: Floats, limit: float, jump: float
) -> _Steps | None:
    """What the looks tell: a jump, or a level."""
    at = np.asarray(trace.facts["steps"])[known]
    rates, past = _highest_rates(trace, at), _past_ratio(trace, places)
    start = _find_jump(ratio, at, rates, jump, past)
    jumped = start is not None
    start = len(ratio) - AFTER if start is None else start
    rise, now = _loss_rise(trace, int(at[start])), float(np.median(ratio[start : start + AFTER]))
    if not jumped and not (np.min(ratio[start:]) > limit and rise > WORSE):
        return None
    if jumped and now < HARMLESS and not rise > ROSE:
        return None
    if jumped and not rise > WORSE and not _is_fresh(ratio, rates, start, jump, past):
        return None
    before = float(np.median(ratio[max(0, start - NEAR) : start])) if start else math.nan
    cause = f"each step changes the weights by {now:.1%}"
    if jumped:
        cause += f", {now / before:.1f} times as much as just before step {at[start]}"
    return _Steps(int(at[start]), now, before, rise, cause)


def _judge_rates(trace: Trace, taken: Floats, jump: float) -> _Steps | None:
    """A rate that jumped above all before it, with the loss."""
    rate = _history.read_steps(trace, "lr")
    if len(taken) <= SETTLED or taken[0] > SETTLED or not np.isfinite(rate).all():
        return None
    highest = np.maximum.accumulate(rate)
    jumps = np.flatnonzero((rate[1:] > jump * highest[:-1]) & (np.arange(1, len(rate)) >= SETTLED)) + 1
    for place in jumps[::-1]:
        if place + STAYED > len(rate) or highest[place - 1] <= 0:
            continue
        rise = _loss_rise(trace, int(taken[place]))
        if rise > ROSE:
            factor = rate[place] / highest[place - 1]
            cause = f"the steps grew {factor:.0f} times at step {int(taken[place])}"
            now, before = _usual(trace, place, None), _usual(trace, 0, place)
            return _Steps(int(taken[place]), now, before, rise, cause, factor)
    return None


def _judge_ruin(trace: Trace, taken: Floats) -> _Steps | None:
    """One step that replaced the weights, after which the loss stays higher."""
    change, loss = _history.read_steps(trace, "update_log"), _history.read_steps(trace, "loss")
    for place in np.flatnonzero(change > math.log(ALL)):
        later, before = loss[place + 1 :], loss[: place + 1]
        later, before = later[np.isfinite(later)], before[np.isfinite(before)]
        if len(later) < STAYED or not len(before):
            continue
        lowest, level = float(np.min(before)), float(np.median(later[:STAYED]))
        if lowest > 0 and level > RUINED * lowest and float(np.median(later[-STAYED:])) > RUINED * lowest:
            now = math.exp(float(change[place]))
            cause = (
                f"step {int(taken[place])} changed the weights by {now:.2g} of them, and the loss went from "
                f"{lowest:.3g} to {level:.3g}"
            )
            return _Steps(int(taken[place]), now, math.nan, math.inf, cause)
    return None


def _judge_start(trace: Trace, taken: Floats) -> _Steps | None:
    """First steps that together replaced the weights, while the loss is above what it was before them."""
    change = np.exp(_history.read_steps(trace, "update_log")[:SOON])
    loss = _history.read_steps(trace, "loss")[:SOON]
    if len(loss) <= MANY or taken[0] > 0 or not np.isfinite(loss).all():
        return None
    change = np.where(np.isfinite(change), change, 0.0)
    for place in range(1, len(loss) - MANY + 1):
        before, after = float(np.median(loss[:place])), loss[place:]
        level = min(float(np.median(after)), float(np.median(after[-STAYED:])))
        whole = float(np.sum(change[place - 1 :]))
        if whole > ALL and before > 0 and level > max(RUINED * before, float(loss[0])):
            steps = len(after)
            cause = (
                f"steps {int(taken[place - 1])} to {int(taken[-1])} changed the weights by {whole:.1f} times "
                f"what they were, and the loss went from {before:.3g} to {level:.3g}"
            )
            return _Steps(int(taken[place]), whole / steps, math.nan, math.inf, cause)
    return None


def _remark(trace: Trace, known: Any, ratio: Floats) -> _Steps:
    """Steps above the limit, though the loss does not rise."""
    start = len(ratio) - AFTER
    now, since = float(np.median(ratio[start:])), int(trace.facts["steps"][known[start]])
    cause = f"each step changes the weights by {now:.1%}; the loss has not risen"
    return _Steps(since, now, math.nan, math.nan, cause, noted=True)


def _usual(trace: Trace, start: int | None, end: int | None) -> float:
    """The median ratio of the readings between two places."""
    change = _history.read_steps(trace, "update_log")[start:end]
    change = change[np.isfinite(change)]
    return math.exp(float(np.median(change))) if len(change) else math.nan


def _tell(trace: Trace, places: list[int], known: Any, found: _Steps, limit: float, jump: float) -> Fault:
    latest = _history.read_looks(trace, places, "update_log")[known[-1]] if len(known) else np.zeros(0)
    order = np.argsort(-np.where(np.isfinite(latest), latest, -math.inf))[: _places.WORST]
    worst = [(trace.sites[places[i]].label, math.exp(latest[i])) for i in order]
    rose = found.rise > ROSE
    return Fault(
        severity="error" if rose else "note" if found.noted else "warning",
        cause=found.cause + _describe_rates(trace, found.since) + (", and the loss rose" if rose else ""),
        sites=tuple(label for label, _ in worst),
        evidence=tuple(_list_evidence(found, worst, limit, jump)),
        remedies=(
            Remedy("lower-learning-rate", (), "back to the rate that worked", safety="advice"),
            Remedy("warm-up", (), "let a larger rate come slowly", safety="advice"),
            Remedy("zclip", (), "bounds a step by the run's own history", safety="exact"),
        ),
        direction="exploding",
        tier=STEPS,
        size=min(MOST, math.log(max(found.now / limit, 1.0))) if found.now > 0 else 0.0,
    )


def _list_evidence(
    found: _Steps, worst: list[tuple[str, float]], limit: float, jump: float
) -> Iterable[Evidence]:
    """What was measured: steps between looks may have no ratio, first steps nothing before them."""
    numbers = (
        Evidence("learning rate / highest before", found.factor, limit=f"< {jump:g}"),
        Evidence("update / weight, median over layers", found.now, limit=f"< {limit:g}"),
        Evidence("the same before", found.before),
        Evidence("loss against before", found.rise, unit="deviations"),
        *(Evidence("update / weight", size, site=label) for label, size in worst[: _places.SHOWN]),
    )
    return (e for e in numbers if math.isfinite(float(e.value)))


def _find_jump(ratio: Floats, at: Floats, rate: Floats, jump: float, past: float) -> int | None:
    """The last look that, with those after it, is far above those before, with a rate or a ratio the run
    never had.
    """
    for j in range(len(ratio) - AFTER, max(BEFORE, len(ratio) - RECENT) - 1, -1):
        low = ratio[j : j + AFTER].min()
        near = low > jump * ratio[max(0, j - NEAR) : j].max()
        if at[j] >= SETTLED and near and _is_fresh(ratio, rate, j, FRESH, past):
            return j
    return None


def _is_fresh(ratio: Floats, rate: Floats, place: int, times: float, past: float) -> bool:
    """Whether the ratio or the rate from a look on is so many times above all that the run ever had."""
    low, highest = ratio[place : place + AFTER].min(), max(past, ratio[:place].max())
    return bool(low > times * highest or rate[place] > times * rate[place - 1])


def _past_ratio(trace: Trace, places: list[int]) -> float:
    """The largest ratio of the looks that are no longer kept, 0 if all are."""
    past = trace.facts.get("past")
    if past is None:
        return 0.0
    known = past[places, trace.statistics.index("update_log")]
    known = known[np.isfinite(known)]
    return math.exp(float(np.median(known))) if len(known) else 0.0


def _highest_rates(trace: Trace, at: Floats) -> Floats:
    """The highest learning rate up to each look, 0 if none is known."""
    taken, rate = _history.read_steps(trace, "step"), _history.read_steps(trace, "lr")
    if not len(taken):
        return np.zeros(len(at))
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
