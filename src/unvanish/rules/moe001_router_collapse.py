"""A router sends nearly all tokens to as few experts as it may choose: the others get no gradient.

Why it harms

An expert that gets no tokens gets no gradient, stays as bad as it was, and is chosen even less.
The mixture computes like one small model and costs the memory of many.

An example

    self.gate.bias.data[0] = 20.0        # or: no balancing loss, and training has collapsed

How it is measured

The choices of largest values (`topk`, `max`, `argmax`, `sort`) along an axis as long as the
module, or one around it, has experts: a list of that many modules, or weights (experts, in,
out). Counted are the choices that fall to the most loaded experts, as many as a token is sent
to.

A soft router mixes all experts by a softmax or a sigmoid. It is named if nothing changes that all
tokens, or all experts, look alike to it: it reads a constant, or the mean of the batch; its scores
have a factor of 0.02 or less (a temperature of 50: scores of size one make weights alike to 1 %
then), are made of numbers below 0.001, or are normalised twice; the experts are copies of each
other; or if one expert has nearly all the weight, by the limits below. A router that only begins at
zero, and one learned weight for each expert, are left alone.

That the router's own weights get no gradient is said by GRF001 (the choice alone is used) and
GRF007 (a single gate divided by itself, which is always 1).

In a watched run the load is followed: (largest - mean) / mean of the tokens that the experts get,
as a share of what it is if all go to as few as possible. Beyond RUN it is a fault if half of the
experts got no token for many looks, or if the load was balanced at first and the median of
LASTING looks is beyond RUN; on its way there it is one with the steps that are left. What is
followed is the share, and its log-odds: a router's logits drift, and its share flattens then.

Limits

    limit = 0.95     of the choices go to the most loaded experts: half of all routers at their
                     start send less than 0.8 there, but where tokens are alike, some send all
                     (measured: 2 to 64 experts, cosines of tokens up to 0.9)
    CERTAIN = 0.9    of the probability lies with the chosen: routers at their start are undecided,
                     and leave such a state by themselves
    RUN = 0.9        of the largest possible excess, in a watched run
    IDLE = 0.5       of the experts without a token for twelve looks: some routers start so, and
                     leave the state by themselves
    BALANCED = 0.5   of the largest excess, median of the FIRST looks: such a router did not begin
                     in that state
    FIRST = 3        looks that are the start
    LASTING = 8      looks whose median it is: batches that each stem from one domain do not come
                     in such rows
    CLEAR = 0.001    is the least share that is followed: an order, no limit
    TOKENS = 8       choices for each expert, at least: fewer say nothing of a balance

Remedies

A balancing loss, noise on the logits, or a bias that follows the load; a router that starts with
small weights and without bias (advice).

When it is wrong

A batch whose tokens are all alike, or that stems from the one domain an expert is made for.

References: Shazeer et al. 2017; Fedus et al. 2022 (Switch); Wang et al. 2024 (a bias in place of
a balancing loss).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.facts import RouterFacts
from unvanish.core.loss_facts import SoftRouterFacts
from unvanish.core.trace import Trace
from unvanish.rules import _history, _places, _trend
from unvanish.rules._fault import Fault
from unvanish.rules._history import Floats
from unvanish.rules._tiers import PART

NEEDS = ("step",)
LIVE = True
EXPLAINS = ("GRF002",)
RUN, IDLE = 0.9, 0.5
BALANCED, FIRST, LASTING, CLEAR = 0.5, 3, 8, 1e-3
TOKENS = 8
CERTAIN = 0.9
SOFT = {  # what is wrong with a router that mixes all experts, and what to change
    "one for all": (
        "it gives all {number:.0f} samples the same weights: it reads their mean, or one of them",
        "let it read each sample, or each token, by itself",
    ),
    "constant": (
        "it reads a constant ({number:.3g}), so all tokens get the same weights",
        "let it read the tokens",
    ),
    "twice": (
        "its scores are normalised twice: no expert gets more than {number:.2g} of the weight",
        "one softmax, over the scores of the layer",
    ),
    "factor": (
        "a factor of {number:.1g} before the softmax keeps all weights alike, and its gradient small",
        "a temperature of 0.5 to 5",
    ),
    "faint": (
        "it reads numbers of size {number:.1g}: all tokens get the same weights",
        "leave the factor before it out, or normalise what it reads",
    ),
    "copies": (
        "they are copies of each other and get equal weights: they, and the router, stay alike for good",
        "draw each expert anew, or start the router with small random weights",
    ),
    "alone": (
        "one of them gets nearly all the weight of {number:.0%} of the tokens: the others get no gradient",
        "start it with small weights and no bias; add a balancing loss",
    ),
}


def check(trace: Trace, *, limit: float = 0.95) -> Iterable[Fault]:
    """One fault naming the routers that have collapsed, or, in a watched run, that will."""
    if soft := trace.facts.get("soft_routers"):
        return [_report_soft(soft[0])]
    if trace.facts.get("live"):
        return _watch(trace)
    routers = [
        router
        for router in trace.facts.get("routers", [])
        if router["rows"] * router["chosen"] >= TOKENS * len(router["load"])
    ]
    if not routers:
        raise NotApplicable("no router of experts saw tokens enough to judge its balance")
    collapsed = sorted(
        (r for r in routers if _measure(r) > limit and r["certain"] > CERTAIN), key=_measure, reverse=True
    )
    if not collapsed:
        return []
    worst, names = collapsed[0], tuple(dict.fromkeys(r["path"] or "(model)" for r in collapsed))
    idle = sum(share == 0 for share in worst["load"])
    top = worst["load"].index(max(worst["load"]))
    experts = len(worst["load"])
    return [
        Fault(
            severity="warning",
            cause=f"the router in {names[0]} sends {_measure(worst):.0%} of its tokens to {worst['chosen']} "
            f"of {experts} experts (the first is number {top}); {idle} get none, and no gradient",
            sites=names[: _places.MOST],
            evidence=(
                Evidence(
                    "share of the most loaded experts", _measure(worst), limit=f"< {limit:g}", site=names[0]
                ),
                Evidence("experts without a token", idle, unit=f"of {experts}", site=names[0]),
                Evidence("their probability", worst["certain"], limit=f"< {CERTAIN:g}", site=names[0]),
                Evidence("experts in use", _count_effective(worst), unit=f"of {experts}", site=names[0]),
            ),
            remedies=(
                Remedy(
                    "balance-router",
                    names[: _places.MOST],
                    "add a balancing loss or noise on its logits; start it with small weights, no bias",
                    safety="advice",
                ),
            ),
            direction="blocked",
            tier=PART,
            size=_measure(worst),
        )
    ]


def _report_soft(router: SoftRouterFacts) -> Fault:
    """The fault of a router that mixes all experts and does not tell them, or the tokens, apart."""
    where, number = router["path"] or "(model)", router["number"]
    text, change = SOFT[router["why"]]
    return Fault(
        severity="warning",
        cause=f"the router in {where} mixes {router['experts']} experts, but {text.format(number=number)}",
        sites=(where,),
        evidence=(Evidence(f"what keeps it so ({router['why']})", number, site=where),),
        remedies=(Remedy("mend-router", (where,), change, safety="advice"),),
        direction="blocked",
        tier=PART,
        size=1.0,
    )


def _watch(trace: Trace) -> list[Fault]:
    """The router of a watched run that has collapsed, or is the first that will."""
    places = [
        i
        for i in trace.where("node", family="router")
        if trace.sites[i].facts["rows"] * trace.sites[i].facts["choices"]
        >= TOKENS * trace.sites[i].facts["experts"]
        and _largest(trace, i) > 0
    ]
    if not places:
        raise NotApplicable("no router of experts saw tokens enough to judge its balance")
    shares = {i: _history.read_looks(trace, [i], "load_excess")[:, 0] / _largest(trace, i) for i in places}
    fallen = [
        i
        for i in places
        if shares[i][-1] > RUN and (trace.value(i, "idle_experts") >= IDLE or _fell(shares[i]))
    ]
    if fallen:
        idle = round(trace.value(fallen[0], "idle_experts") * trace.sites[fallen[0]].facts["experts"])
        said = f"{idle} of its experts got no token for many looks" if idle else "it was balanced at first"
        return [_report_run(trace, fallen, said)]
    looked = _trend.read_looked(trace)
    coming = {i: _foresee(trace, i, looked, shares[i]) for i in places}
    first = _trend.find_first(coming)
    if first is None:
        return []
    return [_report_run(trace, first.sites, f"it will be alone {first.crossing.describe()}")]


def _foresee(trace: Trace, site: int, looked: Floats, shares: Floats) -> _trend.LimitCrossing | None:
    """When a share will be at its limit, by its log-odds or by itself: one is steadier than the other."""
    odds = _trend.find_crossing(looked, _take_odds(trace, site, shares), _odds(RUN))
    return odds or _trend.find_crossing(looked, shares, RUN)


def _fell(shares: Floats) -> bool:
    """Whether a load that was balanced at first has been at its limit for some looks."""
    known = shares[np.isfinite(shares)]
    if len(known) < FIRST + LASTING:
        return False
    return bool(np.median(known[:FIRST]) < BALANCED and np.median(known[-LASTING:]) > RUN)


def _take_odds(trace: Trace, site: int, shares: Floats) -> Floats:
    """The log-odds of a share of the largest excess, as far as so many tokens can tell it from 1."""
    facts = trace.sites[site].facts
    least = 0.5 / (facts["rows"] * facts["choices"])
    known = np.clip(shares, CLEAR, 1 - least)
    odds: Floats = np.log(known) - np.log1p(-known)
    return odds


def _odds(share: float) -> float:
    return math.log(share / (1 - share))


def _largest(trace: Trace, site: int) -> float:
    """The excess if all tokens go to as few experts as may be."""
    facts = trace.sites[site].facts
    return facts["experts"] / facts["choices"] - 1


def _report_run(trace: Trace, places: list[int], outlook: str) -> Fault:
    worst = places[0]
    where, facts = trace.sites[worst].label, trace.sites[worst].facts
    excess = trace.value(worst, "load_excess")
    return Fault(
        severity="warning",
        cause=f"the router in {where} sends {(excess + 1) / facts['experts']:.0%} of its choices to one of "
        f"{facts['experts']} experts; {outlook}",
        sites=_places.label(trace, places),
        evidence=(
            Evidence(
                "(largest - mean) / mean of the load",
                excess,
                limit=f"< {RUN * _largest(trace, worst):.3g}",
                site=where,
            ),
            Evidence("entropy of the load / ln(experts)", trace.value(worst, "load_entropy"), site=where),
            Evidence(
                "experts without a token for many looks",
                trace.value(worst, "idle_experts"),
                limit=f"< {IDLE:g}",
                site=where,
            ),
        ),
        remedies=(
            Remedy(
                "balance-router",
                (where,),
                "a balancing loss, or a bias on its logits that follows the load",
                safety="advice",
            ),
        ),
        direction="blocked",
        tier=PART,
        size=excess / _largest(trace, worst),
    )


def _measure(router: RouterFacts) -> float:
    """The share of the choices that fall to the most loaded experts, as many as a token is sent to."""
    return math.fsum(sorted(router["load"], reverse=True)[: router["chosen"]])


def _count_effective(router: RouterFacts) -> float:
    """Exp of the entropy of the load."""
    return math.exp(-math.fsum(p * math.log(p) for p in router["load"] if p > 0))


def sick() -> Case:
    """A router whose bias prefers one expert."""
    return _case(bias=20.0)


def healthy() -> Case:
    """A router as it starts."""
    return _case(bias=0.0)


def _case(bias: float) -> Case:
    import torch
    from torch import Tensor, nn

    class Mixture(nn.Module):
        """Each token goes through one of four experts, weighted by its gate."""

        def __init__(self) -> None:
            super().__init__()
            self.gate, self.last = nn.Linear(16, 4), nn.Linear(16, 4)
            self.experts = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])
            self.gate.bias.data.zero_()[0] = bias

        def forward(self, x: Tensor) -> Tensor:
            weights, chosen = self.gate(x).softmax(-1).max(-1)
            every = torch.stack([expert(x) for expert in self.experts], 1)
            picked = every[torch.arange(len(x)), chosen]
            out: Tensor = self.last(x + torch.relu(picked) * weights[:, None])
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Mixture(),
            (torch.randn(64, 16), torch.randint(0, 4, (64,))),
            nn.CrossEntropyLoss(),
            story="a mixture of four experts",
        )
