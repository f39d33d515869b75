"""The optimizer's steps are too long: they change the weights by much more than before, or by too
much at all.

Why it harms

A step is a first-order promise, good while the gradient does not change on the way. Where

    ||dW|| / ||W||

is a tenth or more at every step, the network is another one each time; the loss rises, units die,
and what was learned is lost.

How it is measured

The ratio of what a step changed to what was there, for each weight matrix, at the looks of a
watched training. A fault is a jump: at three looks in a row the median over the layers is `jump`
(default 3) times above the looks before (after five looks and twenty steps), and half as much
again above all the run ever had, or with a learning rate it never had; a schedule's restart to an
earlier rate is none. Or a level: above `limit` (default 0.1) at the last three looks, while the
loss is above that of the looks before. With a loss that rose it is an error.

Remedies

A smaller learning rate, or warm-up towards the larger one (advice). Clip what stands out of the
run's own history (exact).

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

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _history

NEEDS = ("history",)
AT_ONCE = True
EXPLAINS = ("OPT003", "ACT003")
BEFORE = 5  # looks a jump is held against
AFTER = 3  # looks that must agree
RECENT = 30  # looks in which a jump is still told
SETTLED = 20  # steps before a jump is one


def check(trace: Trace, *, limit: float = 0.1, jump: float = 3.0) -> Iterable[Finding]:
    """One finding with the ratio, and since when."""
    _history.steps(trace, "step")
    places = _history.weights(trace)
    ratio = np.exp(_history.typical(_history.looks(trace, places, "update_log")))
    known = np.flatnonzero(np.isfinite(ratio))
    if len(known) < 3:
        raise NotApplicable("fewer than three looks at a step")
    ratio, at = ratio[known], np.asarray(trace.facts["steps"])[known]
    since = _jumped(ratio, at, _highest(trace, at), jump, _past(trace, places))
    if since is None and not (np.min(ratio[-3:]) > limit and _rise(trace, int(at[-3])) > 1):
        return []
    start = len(ratio) - 3 if since is None else since
    risen = _rise(trace, int(at[start]))
    now = float(np.median(ratio[start : start + AFTER]))
    before = float(np.median(ratio[max(0, start - 8) : start])) if start else math.nan
    cause = f"each step changes the weights by {now:.1%}"
    if since is not None:
        cause += f", {now / before:.1f} times as much as just before step {at[start]}"
    rates = _rates(trace, int(at[start]))
    if rates:
        cause += f"; the learning rate went from {rates[0]:.3g} to {rates[1]:.3g}"
    if risen > 3:
        cause += ", and the loss rose"
    latest = _history.looks(trace, places, "update_log")[known[-1]]
    worst = np.argsort(-np.where(np.isfinite(latest), latest, -math.inf))[:5]
    evidence = (
        Evidence("update / weight, median over layers", now, "", f"< {limit:g}"),
        Evidence("the same before", before),
        Evidence("loss against before", risen, "deviations"),
        *(
            Evidence("update / weight", math.exp(latest[i]), "", "", trace.sites[places[i]].label)
            for i in worst[:2]
        ),
    )  # fmt: skip
    remedies = (
        Remedy("lower-learning-rate", (), "back to the rate that worked", "advice"),
        Remedy("warm-up", (), "let a larger rate come slowly", "advice"),
        Remedy("zclip", (), "bounds a step by the run's own history", "exact"),
    )
    severity: Severity = "error" if risen > 3 else "warning"
    sites = tuple(trace.sites[places[i]].label for i in worst)
    weight = 5 + min(5.0, math.log(max(now / limit, 1.0)))
    return [
        Finding("OPT001", "step-too-large", severity, cause, sites, evidence, remedies, "exploding", weight)
    ]


def _jumped(ratio: Any, at: Any, rate: Any, jump: float, past: float) -> int | None:
    """The last look that, with the two after it, is far above those before, with a rate or a ratio the run
    never had.
    """
    for j in range(len(ratio) - AFTER, max(BEFORE, len(ratio) - RECENT) - 1, -1):
        low = ratio[j : j + AFTER].min()
        fresh = low > 1.5 * max(past, ratio[:j].max()) or rate[j] > 1.5 * rate[j - 1]
        if at[j] >= SETTLED and low > jump * ratio[max(0, j - 8) : j].max() and fresh:
            return j
    return None


def _past(trace: Trace, places: list[int]) -> float:
    """The largest ratio of the looks that are no longer kept, 0 where all are."""
    past = trace.facts.get("past")
    if past is None:
        return 0.0
    known = past[places, trace.statistics.index("update_log")]
    known = known[np.isfinite(known)]
    return math.exp(float(np.median(known))) if len(known) else 0.0


def _highest(trace: Trace, at: Any) -> Any:
    """The highest learning rate up to each look."""
    taken, rate = _history.steps(trace, "step"), _history.steps(trace, "lr")
    highest = np.maximum.accumulate(np.where(np.isfinite(rate), rate, 0.0))
    return highest[np.clip(np.searchsorted(taken, at), 0, len(taken) - 1)]


def _rise(trace: Trace, step: int) -> float:
    taken = _history.steps(trace, "step")
    return _history.rise(_history.steps(trace, "loss"), int(np.searchsorted(taken, step)))


def _rates(trace: Trace, step: int) -> tuple[float, float] | None:
    """The learning rate before a step and now, where it grew."""
    taken, rate = _history.steps(trace, "step"), _history.steps(trace, "lr")
    place = int(np.searchsorted(taken, step))
    earlier = rate[max(0, place - 20) : max(0, place - 1)]
    if not len(earlier) or not rate[-1] > 1.5 * np.nanmedian(earlier):
        return None
    return float(np.nanmedian(earlier)), float(rate[-1])


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

    training = _history.training_case(
        optimizer=lambda m: torch.optim.Adam(m.parameters(), 3e-3), steps=60, event=event
    )
    return Case(net, batch, nn.CrossEntropyLoss(), training, story=f"the rate times {factor:g} at step 40")
