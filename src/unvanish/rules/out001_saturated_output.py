"""The output cannot give the right answers: its last function is saturated at wrong ones, or does
not reach the targets.

Why it harms

A squared error behind a sigmoid keeps the sigmoid's slope in the gradient,

    dL/dz = 2 (p - y) p (1 - p) -> 0 as p -> 0 or 1

so a sample that is wrong with full confidence teaches nothing: at a logit of 20 the gradient is
4e-9, with binary cross-entropy it is 1. And an output whose range ends before the targets is driven
to that end and stays there: a sigmoid for targets of -2 to 2, a softmax over one unit, which is 1
whatever its logit, a softmax for several labels at once, a tanh where logits are expected.

An example

    p = torch.sigmoid(head(h))                   # head.bias at 18: p is 1 for every sample
    loss = nn.functional.mse_loss(p, y)          # half of y is 0

How it is measured

The output activation's mean slope relative to its largest (softmax: mean p (1 - p) summed over
classes), and mean |p - y| over the output's range, under a squared or absolute error. A slope below
`limit` is a fault if the answers are off by more than `residual`, and an error far below it.

The range of the last function against the targets that torch's losses, or a difference written by
hand, compare it with; the axis of a softmax against the rows of the targets; and which function
made what cross-entropy reads as logits, in the model or in the loss, by its name or by what it cuts
off (a clamp, a maximum, a mask); whether the classes lie along the axis on which the last
layer made them, views followed; a loss written by hand as torch's own. A variance, or another
divisor of the loss, that is next to zero where what it divides is not. An overlap with answers of
yes and no that divides by a sum of what a layer gave, of both signs. Marks for missing answers,
one constant that the loss masks away later, are no targets.

Limits

    limit = 0.1      of the largest slope: a sigmoid at a logit of 3.6
    residual = 0.2   mean |p - y| over the range: a sigmoid that knows nothing is off by 0.5, one
                     that has converged by less than 0.05
    FLATTER = 5      times flatter than the limit is an error
    FLOORED = 0.01   of a loss's divisors next to zero, where what they divide is not: healthy ones
                     have none, and one in a hundred makes the loss
    LEAST = 1e-12    is the least slope that counts: an order, no limit

Remedies

Use binary cross-entropy or cross-entropy on the logits (retrain). Make the last layer's weights and
bias smaller (retrain). For targets out of reach: a linear last layer, a sigmoid for one unit or for
several labels (retrain), or targets brought into the range (advice).

When it is wrong

A converged model has saturated outputs that are right; its residual is small and nothing is
reported. A sigmoid that is scaled afterwards has no range that is known here.

References: Solla et al. 1988; Glorot and Bengio 2010; Goodfellow et al. 2016, section
6.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.facts import SiteFacts
from unvanish.core.loss_facts import WishFacts
from unvanish.core.trace import Trace
from unvanish.rules import _reach
from unvanish.rules._fault import Fault, blame_loss
from unvanish.rules._tiers import OUTPUT

NEEDS = ("static", "step")
EXPLAINS = ("INI002", "ACT001", "OUT003", "GRF004", "INI001", "PRC001")
ERRORS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "difference")
FLATTER = 5
FLOORED = 0.01
LEAST = 1e-12


def check(trace: Trace, *, limit: float = 0.1, residual: float = 0.2) -> Iterable[Fault]:
    """One fault if an output cannot reach its targets, or is flat and wrong under a squared error."""
    if misfits := [m for i in trace.where("output") if (m := _reach.find_misfit(trace.sites[i]))]:
        return [_report(misfits[0])]
    if floors := [w for w in trace.facts.get("wishes", []) if w["how"] == "floor" and w["share"] > FLOORED]:
        return [_report_floor(floors[0])]
    if scored := [w for w in trace.facts.get("wishes", []) if w["how"] == "scores"]:
        return [_report_scores(scored[0])]
    outputs = _squashed_outputs(trace)
    if not outputs:
        raise NotApplicable("no squared or absolute error reads a squashed output")
    wrong = [f for f in outputs if f["output_slope"] < limit and f.get("residual", 0.0) > residual]
    if not wrong:
        return []
    facts = min(wrong, key=lambda f: f["output_slope"])
    slope, off, kind = facts["output_slope"], facts["residual"], facts["activation"]
    site = (str(facts.get("site", "loss")),)
    loss = "cross-entropy" if kind == "softmax" else "binary cross-entropy with logits"
    return [
        Fault(
            severity="error" if slope < limit / FLATTER else "warning",
            cause=f"the {kind} output is saturated (slope {slope:.1e} of its largest) while its answers are "
            f"off by {off:.2f}",
            sites=site,
            evidence=(
                Evidence(
                    "slope of the output, relative", slope, limit=f"> {limit:g}", site=facts.get("site", "")
                ),
                Evidence("mean |p - y|", off, unit="of the range", limit=f"< {residual:g}", site="loss"),
            ),
            remedies=(
                Remedy(
                    "use-loss-with-logits",
                    site,
                    f"{loss} cancels the slope of the {kind}",
                    parameters={"loss": loss},
                ),
                Remedy(
                    "shrink-output-layer",
                    site,
                    "smaller weights and bias bring the output back where it has a slope",
                ),
            ),
            direction="vanishing",
            tier=OUTPUT,
            size=-math.log(max(slope, LEAST)),
        )
    ]


def _report(misfit: _reach.Misfit) -> Fault:
    """The fault of an output that cannot reach its targets."""
    where = misfit.evidence.site
    return Fault(
        severity=misfit.severity,
        cause=misfit.cause,
        sites=(where,) if where else (),
        evidence=(misfit.evidence,),
        remedies=misfit.remedies,
        direction="none",
        tier=OUTPUT,
    )


def _report_floor(wish: WishFacts) -> Fault:
    """The fault of a variance, or another divisor, that stands at its floor."""
    place, share = f" at {wish['source']}" if wish["source"] else "", wish["share"]
    return blame_loss(
        f"the loss divides by what the model gives{place}, and {share:.0%} of that is next to zero: a few "
        "numbers make the whole gradient",
        Evidence("share of the divisors next to zero", share, limit=f"< {FLOORED:g}", site="loss"),
        Remedy("positive-variance", ("loss",), "exp of a log-variance, or softplus + 0.001", "advice"),
        OUTPUT,
        direction="exploding",
    )


def _report_scores(wish: WishFacts) -> Fault:
    """The fault of scores that an overlap takes for probabilities."""
    place = f" at {wish['source']}" if wish["source"] else ""
    return blame_loss(
        f"the overlap{place} takes the model's scores for probabilities: it divides by a sum of "
        "numbers of both signs, which may be zero, and below it the loss falls without end",
        Evidence("what the overlap reads", "scores of both signs", limit="between 0 and 1", site="loss"),
        Remedy("squash-scores", ("loss",), "a sigmoid, or a softmax over the classes, before it", "advice"),
        OUTPUT,
        direction="exploding",
    )


def _squashed_outputs(trace: Trace) -> list[SiteFacts]:
    """What is known of the outputs that a squared or absolute error reads behind a squashing function."""
    sites = (trace.sites[i] for i in trace.where("output"))
    facts = (s.facts for s in sites if s.kind in ERRORS and s.facts.get("activation"))
    return [f for f in facts if math.isfinite(f.get("output_slope", math.nan))]


def sick() -> Case:
    """A sigmoid pushed to one by its bias, under a squared error, with half of the answers zero."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
        nn.init.constant_(net[2].bias, 18.0)
        batch = torch.randn(64, 16), (torch.arange(64) % 2).float()[:, None]
        return Case(net, batch, nn.MSELoss(), story="a sigmoid output at a bias of 18")


def healthy() -> Case:
    """The same saturated sigmoid, whose answers are right."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
        nn.init.constant_(net[2].bias, 12.0)
        y = torch.ones(64, 1)
        y[:2] = 0
        return Case(net, (torch.randn(64, 16), y), nn.MSELoss(), story="a saturated sigmoid that is right")
