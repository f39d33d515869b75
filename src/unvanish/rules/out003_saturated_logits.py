"""The logits are so large that the loss is saturated: every answer is certain, and many are wrong.

Why it harms

With logits of size s the softmax is one-hot, the loss of a wrong sample is about s, and its
gradient

    dL/dz = p - y

is the same for all wrong samples however wrong they are, and zero for all right ones. The first
steps only shrink the last layer; in float16 the exponentials overflow.

An example

    head = nn.Linear(64, 5)
    head.weight.data *= 2000
    loss = nn.functional.cross_entropy(head(h), y)       # in the hundreds, at the first step

How it is measured

The largest |logit| that cross-entropy or binary cross-entropy reads is above `limit`, the typical
range across classes above a part of it, and the error remains: mean |p - y| is above `residual`. An
error if the logits are far above the limit. Logits that are cosines times a factor are judged by
that alone: a fault above COSINE. A fill value, one negative number that is the least of all and
there more than once, takes classes out on purpose and does not count. In a watched run whose first
losses are near ln(classes), so that the output is logits, ln Z = ln sum exp(logits) is followed:
beyond `limit` it is a fault, on its way there one with the steps that are left, unless the run has
converged.

Limits

    limit = 30        |logit|: healthy nets have up to 14 (measured); exp(-30) is 1e-13, so the
                      softmax is one-hot in float32
    residual = 0.05   mean |p - y|: a model below it has converged, and its logits may be large
    COSINE = 150      the factor of logits that are cosines: their size is bounded by it, and
                      published ones reach 100 (a temperature of 0.01)
    TYPICAL = 3       times smaller is the range that most samples have: one outlier is no
                      saturation
    FAR = 3           times the limit is an error, about where exp overflows in float32 (88)
    NEAR = 2          times ln(classes), or a part of it, is a first loss that says that these
                      are logits
    FEW = 5           first losses, whose median that is

Remedies

Start the last layer small: zero, or a gain of 0.01 to 1 (retrain). A normalisation before the head
(retrain). A z-loss on the logits (advice).

When it is wrong

A converged model has large logits that are right; its residual is small and nothing is reported.

References: Goyal et al. 2017 (zero-init heads); Chowdhery et al. 2022 (z-loss); Guo et
al. 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.facts import SiteFacts
from unvanish.core.trace import Trace
from unvanish.rules import _converged, _history, _places, _trend
from unvanish.rules._fault import Fault, blame_loss
from unvanish.rules._tiers import START

NEEDS = ("static", "step")
LIVE = True
EXPLAINS = ("NUM001", "OPT008", "PRC002")
COSINE = 150.0
NEAR = 2
FEW = 5  # first losses
TYPICAL = 3
FAR = 3


def check(trace: Trace, *, limit: float = 30.0, residual: float = 0.05) -> Iterable[Fault]:
    """One fault if the logits are huge and the answers wrong, or, in a watched run, drift off."""
    if trace.facts.get("live"):
        return _watch(trace, limit)
    losses = _places.find_logit_losses(trace)
    outputs = [trace.sites[i].facts for i in trace.where("output")]
    if cold := [f for f in outputs if f.get("cosine_scale", 0.0) > COSINE]:
        return [_report_cold(cold[0])]
    if not losses:
        raise NotApplicable("no loss that reads logits was seen")
    huge = [f for i in losses if _is_saturated(f := trace.sites[i].facts, limit, residual)]
    if not huge:
        return []
    facts = max(huge, key=lambda f: f["logit_max"])
    largest, off, where = float(facts["logit_max"]), float(facts["residual"]), _find_head(trace)
    return [
        Fault(
            severity="error" if largest > FAR * limit else "warning",
            cause=f"the logits reach {largest:.0f}, so every answer is certain, and {off:.0%} of that is "
            "wrong",
            sites=(where,),
            evidence=(
                Evidence("largest |logit|", largest, limit=f"< {limit:g}", site=where),
                Evidence(
                    "typical range of the logits",
                    float(facts["logit_top"]),
                    limit=f"< {limit / TYPICAL:g}",
                    site=where,
                ),
                Evidence("mean |p - y|", off, limit=f"< {residual:g}", site="loss"),
            ),
            remedies=(
                Remedy(
                    "shrink-output-layer",
                    (where,),
                    "a last layer of small gain starts undecided",
                    parameters={"gain": 0.1},
                ),
                Remedy(
                    "insert-normalisation",
                    (where,),
                    "a normalisation in front of the head bounds what it reads",
                ),
                Remedy(
                    "z-loss",
                    (where,),
                    "a penalty on log Z keeps the logits small",
                    safety="advice",
                    parameters={"weight": 1e-4},
                ),
            ),
            direction="none",
            tier=START,
            size=math.log(largest),
        )
    ]


def _report_cold(facts: SiteFacts) -> Fault:
    """The fault of cosines that are multiplied until the softmax is one-hot."""
    scale = facts["cosine_scale"]
    return blame_loss(
        f"the logits are cosines times {scale:.0f} (a temperature of {1 / scale:.1g}): the softmax is one-"
        "hot and one pair makes each sample's gradient",
        Evidence("factor of the cosines", scale, limit=f"< {COSINE:g}", site="loss"),
        Remedy("set-temperature", ("loss",), "a temperature of 0.05 to 0.5", "advice"),
        START,
        size=math.log(scale),
    )


def _watch(trace: Trace, limit: float) -> list[Fault]:
    """Logits that have drifted off together, or will."""
    places = [i for i in trace.where("node") if math.isfinite(trace.value(i, "log_z"))]
    if not places or not _are_logits(trace, places[-1]):
        raise NotApplicable("no output was seen that is logits for sure")
    site, usual = places[-1], math.log(trace.sites[places[-1]].facts["shape"][-1])
    drift = np.abs(_history.read_looks(trace, [site], "log_z")[:, 0] - usual)
    crossing = _trend.find_crossing(_trend.read_looked(trace), drift, limit)
    if (crossing is None and not drift[-1] > limit) or _converged.has_converged(trace):
        return []
    where, now = trace.sites[site].label, trace.value(site, "log_z")
    outlook = f"; it is {limit:g} away {crossing.describe()}" if crossing is not None else ""
    return [
        Fault(
            severity="warning",
            cause=f"all logits of {where} drift off together: ln Z is {now:.3g} instead of about {usual:.2g}"
            + outlook,
            sites=(where,),
            evidence=(
                Evidence("ln sum exp(logits)", now, limit=f"within {limit:g} of {usual:.2g}", site=where),
                Evidence(
                    "steps until it is at the limit",
                    crossing.steps if crossing is not None else 0,
                    site=where,
                ),
            ),
            remedies=(
                Remedy(
                    "z-loss",
                    (where,),
                    "a penalty on log Z keeps the logits small",
                    safety="advice",
                    parameters={"weight": 1e-4},
                ),
                Remedy("lower-learning-rate", (), "logits drift fastest under long steps", safety="advice"),
            ),
            direction="none",
            tier=START,
            size=math.log(max(1.0, abs(now))),
        )
    ]


def _are_logits(trace: Trace, site: int) -> bool:
    """Whether the first losses are those of a guess among as many classes as the output has."""
    classes = trace.sites[site].facts["shape"][-1]
    start = [v for v in trace.facts.get("start", []) if math.isfinite(v)]
    usual = math.log(classes)
    return bool(start) and usual / NEAR < float(np.median(start[:FEW])) < NEAR * usual


def _is_saturated(facts: SiteFacts, limit: float, residual: float) -> bool:
    """Whether the logits of a loss are huge, most of them, and the answers wrong."""
    largest, typical = facts.get("logit_max", 0.0), facts.get("logit_top", 0.0)
    if "cosine_scale" in facts:
        return False  # the factor bounds them, and is judged by itself
    huge = math.isfinite(largest) and largest > limit and typical > limit / TYPICAL
    return huge and facts.get("residual", 0.0) > residual


def _find_head(trace: Trace) -> str:
    """The last layer before the loss."""
    layers = [i for i in trace.where("node") if trace.sites[i].family == "layer"]
    return trace.sites[max(layers, key=lambda i: trace.sites[i].order)].label if layers else "loss"


def sick() -> Case:
    """A last layer two thousand times too large."""
    return _case(2000.0, right=False)


def healthy() -> Case:
    """Logits as large, every one of them right."""
    return _case(2000.0, right=True)


def _case(factor: float, right: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
        net[2].weight.data *= factor
        x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))
        with torch.no_grad():
            y = net(x).argmax(-1) if right else y
        return Case(net, (x, y), nn.CrossEntropyLoss(), story="a huge last layer")
