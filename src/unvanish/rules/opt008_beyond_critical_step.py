"""The learning rate is beyond the largest one that still lowers the loss: the step overshoots, and
the loss rises on the very batch that it was made from.

Why it harms

Along a step the loss falls first, by the gradient, and rises again, by the curvature:

    L(w + m d) = L(w) + m g.d + m^2 d.H.d / 2

Beyond the m at which this is L(w) again, the step makes worse what it was meant to improve. A rate
a little beyond it may be thrown into a flatter region and train on; one far beyond it diverges, or
throws its units out of their range for good.

An example

    optimizer = torch.optim.Adam(net.parameters(), 0.1)      # 0.001 is usual

How it is measured

By experiment, on the weights of a copy: the loss of one batch at multiples of the step, with the
same random numbers each time. The largest multiple that still lowers it, times the rate, is the
critical rate; 2 over it is the sharpness along the step. `check(optimizer=...)` tries the step that
the optimizer would take from its state, if it would change a large part of the weights; with `lr=`
it tries it in any case, and says what it found in a note. A watched training tries a step if
OPT001 or a rising loss asks for it, or, with `critical=True`, at its looks.

A first step is a fault if its rate is `limit` times the critical one; what `check` was not asked
about is a note, or a warning if the loss is not finite after it. It comes after what else is wrong.
Later ones, which momentum makes overshoot now and then, are a fault if two in a row overshoot and
the loss has doubled.

Limits

    limit = 2       times the critical rate: up to there SGD is often caught by a flatter region
                    (twice it is where theory ends that, Lewkowycz et al. 2020). Of 180 small
                    trainings by SGD, momentum and Adam 22 began beyond it; in 21 of them the loss
                    went to three times its start or to infinity (`benchmarks/critical.py`)
    FAR = 10        times it, or a loss that is not finite after the step, is an error
    ROSE = 0.1      of the loss is what a later step must add to it: near a minimum many steps end
                    a little above
    DOUBLED = 2     times what the loss was before: it is running away
    BEFORE = 20     steps at most whose median that is; without one the first loss that was tried
    FARTHEST = 5    nats that count in the order, no limit

Remedies

A rate below the critical one (advice). Warm-up, if the first steps alone are too long (advice). A
bound on the norm of the gradient (advice).

When it is wrong

On a batch that is not like the others. A watched run tries the first step of SGD, whose length is
known late, on the batch after it. The rate of SGD follows the scale of the loss: a sum over the
batch in place of a mean is a rate so many times larger, here as in the training. Momentum goes on
growing the steps for some ten steps, so a first step that passes says nothing of them.

References: Kalra et al. 2026 (critical sharpness, arXiv 2601.16979); Lewkowycz et al. 2020 (the
catapult phase); Cohen et al. 2021 (the edge of stability).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.run_facts import CriticalFacts
from unvanish.core.trace import Trace
from unvanish.rules import _history
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import REMARK, STEPS

NEEDS = ("static", "step")
LIVE = True
AT_ONCE = True
EXPLAINS = ("OPT001", "OPT003", "ACT003", "ATT001", "OUT003", "NUM001")
FAR = 10.0
ROSE, DOUBLED = 0.1, 2.0
BEFORE = 20
FARTHEST = 5.0  # nats that count in the order


def check(trace: Trace, *, limit: float = 2.0) -> Iterable[Fault]:
    """One fault with the multiple of the critical rate; a note if the rate was asked about and passes."""
    tried = trace.facts.get("critical", [])
    if not tried:
        raise NotApplicable("no step was tried; ask for it by lr=, or give an optimizer whose step is long")
    last = tried[-1]
    first_steps = [t for t in tried if t["step"] <= 0 and _find_times(t) > limit]
    if first_steps and first_steps[-1] is last:
        return [_report(last, limit, bool(trace.facts.get("asked")))]
    if _runs_away(trace, tried[-2:]):
        return [_report(max(tried[-2:], key=_find_times), limit)]
    return [_remark(last, limit)] if trace.facts.get("asked") else []


def _find_times(tried: CriticalFacts) -> float:
    """The rate over the critical one; NaN if the step does not lead down at all, so that none is critical."""
    multiple = tried["multiple"]
    return 1 / multiple if multiple > 0 else math.nan if math.isnan(multiple) else math.inf


def _runs_away(trace: Trace, pair: Sequence[CriticalFacts]) -> bool:
    """Whether two steps in a row overshoot by much, and the loss is twice what it was before them."""
    if len(pair) < 2 or not all(_find_times(t) > 1 and _rises(t) for t in pair):
        return False
    before = _read_loss_before(trace, pair[0])
    return bool(pair[1]["loss_before"] - before > (DOUBLED - 1) * abs(before))


def _rises(tried: CriticalFacts) -> bool:
    added = tried["loss_after"] - tried["loss_before"]
    return not added <= ROSE * abs(tried["loss_before"])  # what is not finite rises too


def _read_loss_before(trace: Trace, tried: CriticalFacts) -> float:
    """The usual loss before a step, or the first that was measured."""
    step, loss = _history.read_steps(trace, "step"), _history.read_steps(trace, "loss")
    known = loss[step < tried["step"]][-BEFORE:]
    known = known[np.isfinite(known)]
    return float(np.median(known)) if len(known) else trace.facts["critical"][0]["loss_before"]


def _describe(tried: CriticalFacts, times: float) -> str:
    """The rate beside the critical one, in words."""
    if math.isinf(times):
        return f"no part of the step at the rate {tried['rate']:.3g} lowers the loss"
    if times == 0:
        return f"the rate {tried['rate']:.3g} is far below the critical one"
    return f"the rate {tried['rate']:.3g} is {times:.2g} times the critical one, {tried['rate'] / times:.2g}"


def _list_evidence(tried: CriticalFacts, times: float, limit: float) -> tuple[Evidence, ...]:
    sharpness = 2 * times / tried["rate"] if tried["rate"] > 0 else math.nan
    said = "no rate lowers the loss" if math.isinf(times) else times
    return (
        Evidence("rate / critical rate", said, limit=f"< {limit:g}"),
        Evidence("loss before the step", tried["loss_before"]),
        Evidence("loss after it, on the same batch", tried["loss_after"]),
        *([Evidence("sharpness along the step", sharpness)] if math.isfinite(sharpness) else []),
        Evidence("forwards that this took", tried["forwards"]),
    )


def _report(tried: CriticalFacts, limit: float, asked: bool = False) -> Fault:
    times = _find_times(tried)
    wild, sure = not math.isfinite(tried["loss_after"]), tried["step"] >= 0 or asked
    where = f"at step {tried['step']} " if tried["step"] >= 0 else ""
    below = f"below {tried['rate'] / times:.2g}" if 0 < times < math.inf else "a tenth, or less"
    return Fault(
        severity="error" if sure and (times > FAR or wild) else "warning" if sure or wild else "note",
        cause=f"{where}{_describe(tried, times)}: one step takes the loss of one batch from "
        f"{tried['loss_before']:.3g} to {tried['loss_after']:.3g}",
        sites=(),
        evidence=_list_evidence(tried, times, limit),
        remedies=(
            Remedy(
                "lower-learning-rate",
                (),
                f"{below}; a third of the critical rate is a good start",
                safety="advice",
                parameters={"rate": tried["rate"] / (3 * times)} if 0 < times < math.inf else {},
            ),
            Remedy("warm-up", (), "if the first steps alone are too long", safety="advice"),
        ),
        direction="exploding",
        tier=STEPS if sure else REMARK,
        size=min(FARTHEST, math.log(max(times, 1.0))) / (1 if sure else FAR),
    )


def _remark(tried: CriticalFacts, limit: float) -> Fault:
    """What was asked for, without a fault."""
    times = _find_times(tried)
    said = "the step does not lead down the loss of this batch, so no rate is critical"
    return Fault(
        severity="note",
        cause=said if math.isnan(times) else _describe(tried, times),
        sites=(),
        evidence=_list_evidence(tried, times, limit),
        remedies=(),
        direction="none",
        tier=REMARK,
    )


def sick() -> Case:
    """Adam at a rate of 0.3, which is asked about."""
    return _case(0.3, {"lr": 0.3})


def healthy() -> Case:
    """Adam at a rate of 0.03, whose first step is long too, and lowers the loss."""
    return _case(0.03)


def _case(rate: float, asked: Mapping[str, float] = MappingProxyType({})) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
        for layer in net[::2]:
            nn.init.kaiming_normal_(layer.weight)
        x = torch.randn(64, 16)
        batch = x, (x @ torch.randn(16, 4)).argmax(1)
        optimizer = torch.optim.Adam(net.parameters(), rate)
    return Case(
        net, batch, nn.CrossEntropyLoss(), {"optimizer": optimizer, **asked}, story=f"Adam at {rate:g}"
    )
