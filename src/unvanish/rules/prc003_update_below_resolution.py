"""The optimizer's steps are smaller than the weights' dtype resolves, so most weights never move.

Why it harms

A number keeps its first digits only. In bfloat16 a weight of 0.05 has neighbours 0.0002 away, and

    0.05 - 0.00003 = 0.05

so a step of less than half of that distance is rounded away, at each step anew: many small steps
add up to nothing. Adam's steps are about the learning rate, whatever the gradient is.

An example

    model = model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5)     # most weights stay as they are

How it is measured

With an optimizer of torch's own (`check(optimizer=...)`): the step that it will take with each
parameter, the rate for Adam and its like, the rate times the gradient for SGD (in half precision
alone, as it follows the scale of the loss), against half of the last place of each weight. A fault
if more than `limit` of all trained numbers are left as they are. In a watched training with half
weights: the share of a few weights that a gradient reached and no step moved. In float16 also: the
epsilon and the average of squares of Adam, RMSprop or Adagrad are both zero, so that the first step
divides by zero. One element is enough: a unit that is off has a gradient of 0, and 1 / 0 in one
weight is a NaN in all of them a step later.

Limits

    limit = 0.5      of the numbers that the optimizer holds: with float32 weights and usual rates
                     none, in bfloat16 at a rate of 0.001 a tenth
    MOST = 0.9       of them is an error
    READ = 16        readings of weights in a watched training, at the larger half of its rates

Remedies

Keep the weights in float32 and compute in half precision by autocast (retrain). Round at random, or
keep the rounding error (advice). A larger rate, as far as it trains (advice). For Adam in float16
an epsilon of 1e-4 (advice).

When it is wrong

Optimizers that keep float32 copies of the weights, or round at random, are not torch's own, and are
not judged.

References: Micikevicius et al. 2018, section 3.1; Zamirai et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _converged, _history, _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import STEPS

NEEDS = ("static", "step")
LIVE = True
AT_ONCE = True
EXPLAINS = ("OPT006", "OPT002", "OPT008")
MOST = 0.9
READ = 16
HALF = ("bfloat16", "float16")


def check(trace: Trace, *, limit: float = 0.5) -> Iterable[Fault]:
    """One fault if the planned steps are rounded away, or divide by zero."""
    if trace.facts.get("live"):
        return _judge_steps(trace, limit)
    held = [i for i in trace.where("parameter") if "step_lost" in trace.sites[i].facts]
    if not held:
        raise NotApplicable("no optimizer of torch's own was given; pass optimizer=")
    divided = [i for i in held if trace.sites[i].facts.get("epsilon_lost")]
    if divided:
        return [_report_division(trace, divided)]
    numbers = {i: int(trace.sites[i].facts["numel"]) for i in held}
    lost = {i: float(trace.sites[i].facts["step_lost"]) for i in held}
    share = sum(numbers[i] * lost[i] for i in held) / max(1, sum(numbers.values()))
    if share <= limit:
        return []
    worst = sorted((i for i in held if lost[i] > limit), key=lambda i: -numbers[i] * lost[i])
    step, dtype = float(trace.sites[worst[0]].facts["planned"]), trace.facts.get("dtype", "their dtype")
    sites = _places.label(trace, worst)
    return [
        Fault(
            severity="error" if share > MOST else "warning",
            cause=f"{share:.0%} of the weights will not move: the optimizer's steps of {step:.1e} are "
            f"smaller than half of what {dtype} resolves",
            sites=sites,
            evidence=(
                Evidence("share of the numbers that stay as they are", share, limit=f"< {limit:g}"),
                Evidence("planned step", step, site=sites[0]),
            ),
            remedies=_remedies(sites),
            direction="none",
            tier=STEPS,
            size=share,
        )
    ]


def _judge_steps(trace: Trace, limit: float) -> list[Fault]:
    """One fault if the steps of a watched training left most weights as they are."""
    if "plan" not in trace.facts or trace.facts["plan"]["dtype"] not in HALF:
        raise NotApplicable("the weights are not in half precision")
    plan, rate = trace.facts["plan"], _history.read_steps(trace, "lr")
    still = _history.read_steps(trace, "still")
    usual = rate >= 0.5 * np.nanmax(rate) if np.isfinite(rate).any() else np.full(len(rate), True)
    known = still[np.isfinite(still) & usual]
    if len(known) < READ or not math.isfinite(plan["planned"]):
        raise NotApplicable(f"fewer than {READ} readings of weights, or no optimizer of torch's own")
    share = float(known.mean())
    if share <= limit or _converged.has_converged(trace):
        return []
    return [
        Fault(
            severity="error" if share > MOST else "warning",
            cause=f"{share:.0%} of the weights did not move: the optimizer's steps of {plan['planned']:.1e} "
            f"are below half of what {plan['dtype']} resolves, {plan['resolution']:.1e}, and rounded away",
            sites=(),
            evidence=(
                Evidence("share of the numbers that stay as they are", share, limit=f"< {limit:g}"),
                Evidence("planned step", plan["planned"], limit=f"> {plan['resolution']:.1e}"),
            ),
            remedies=_remedies(()),
            direction="none",
            tier=STEPS,
            size=share,
        )
    ]


def _remedies(sites: tuple[str, ...]) -> tuple[Remedy, ...]:
    return (
        Remedy("keep-float32", (), "weights in float32, and half precision by autocast alone", "exact"),
        Remedy("round-at-random", sites, "or an optimizer that rounds at random", "advice"),
        Remedy("raise-learning-rate", sites, "or a larger rate, as far as it trains", "advice"),
    )


def _report_division(trace: Trace, divided: list[int]) -> Fault:
    """The fault of an Adam whose epsilon and squares are zero in float16."""
    sites = _places.label(trace, divided)
    return Fault(
        severity="error",
        cause=f"the first step divides by zero in {len(divided)} parameters: the optimizer's epsilon and its "
        "average of squared gradients are both zero in float16",
        sites=sites,
        evidence=(Evidence("parameters whose step is not finite", len(divided), limit="0", site=sites[0]),),
        remedies=(
            Remedy("keep-float32", (), "weights in float32, and half precision by autocast alone", "exact"),
            Remedy("raise-epsilon", sites, "an epsilon of 1e-4 is kept by float16", "advice"),
        ),
        direction="exploding",
        tier=STEPS,
    )


def sick() -> Case:
    """Weights in bfloat16, and a rate of 3e-5."""
    return _case(half=True)


def healthy() -> Case:
    """The same in float32."""
    return _case(half=False)


def _case(half: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dtype = torch.bfloat16 if half else torch.float32
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).to(dtype)
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-5)
        batch = torch.randn(32, 16).to(dtype), torch.randint(0, 4, (32,))
        return Case(net, batch, nn.CrossEntropyLoss(), {"optimizer": optimizer}, story="a rate of 3e-5")
