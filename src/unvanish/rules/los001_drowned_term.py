"""One term of the loss is larger than another by decades in the weights that both train.

Why it harms

The gradient of a sum is the sum of the gradients,

    g = w_1 g_1 + w_2 g_2,  with |w_1 g_1| = 1000 |w_2 g_2| it is the first term's alone

so the second task, or the data beside a penalty, is not learned until the first is done. Terms in
different units, or a sum beside a mean, differ so without anybody wanting it.

An example

    loss = F.mse_loss(price, y) + F.cross_entropy(z, c)                        # 1e8 and 2.3
    loss = F.cross_entropy(z, c) + 10 * sum(w.square().sum() for w in net.parameters())

How it is measured

If the loss is a sum of up to eight terms: the norm of the gradient that each gives the parameters
which it shares with another. A penalty on the weights alone is a fault if it is above `penalty`
times the terms of the data. Of two terms of the data, one is a fault if it is above `limit` times
the other, their factors are alike, and the smaller is not satisfied already. Nor does it count if
it asks the same of all samples and has a head of its own, as a detector's level without objects
does: a bias answers that, and beside a term 124 times as strong it fell as it does alone
(measured), or if one is the whole and the other a part that is taken off, as the diagonal of a
matrix that is not to count. Factors that differ are meant; if the term of the larger factor
drowns the other it is a note, and a fault if no target enters it and it is above UNASKED times,
or if targets enter both and it is above CHOSEN times. Two of torch's losses of equal size that
point in opposite directions are a note.

The optimizer's weight decay, if it is 0.5 or more, against the loss in all weights: a fault above
`penalty`. And the weights of a cross-entropy's classes against the labels of the batch: a class
that weighs nothing (a note if it is the first or the last alone, as of background), or the most
frequent class with four times the weight of the rarest, of which it has four times the labels.

Limits

    penalty = 10       times the gradient of the data: usual penalties have 0.001 to 0.1 at the
                       start, and 1 where both balance
    limit = 100        times between two terms: tasks in like units have up to 10
    MEANT = 10         times between the factors: somebody chose them, and the smaller term is left
                       alone unless it is below `limit` without them too
    SATISFIED = 0.1    of a term's value, without its factor: less is near the least of most losses
    UNASKED = 1000     times between a term that no target enters and one of the targets: a fault
                       even if its factor was chosen
    CHOSEN = 10000     times between two terms that targets enter: a fault even if the factors were
                       chosen, for Adam's step then leaves the smaller no digit of its own
    LEAST = 1e-6       is the least weight that counts: an order, no limit
    OPPOSED = -0.9     the cosine of two gradients that undo each other
    ALIKE = 3          times between two gradients of equal size

Remedies

Bring the terms to one size: targets in units of their deviation, means instead of sums, a factor of
the inverse ratio (advice). A penalty: a hundredth of its factor (advice). Learned factors, or
gradients normalised for each task (advice).

When it is wrong

A term that is to act only at the end of the training may be small before.

References: Chen et al. 2018 (GradNorm); Kendall et al. 2018; Yu et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.loss_facts import PairFacts, TermFacts, WishFacts
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault, blame_loss
from unvanish.rules._tiers import STEPS

NEEDS = ("static", "step")
EXPLAINS = ("OUT005",)
ERRORS = ("_loss", "cross_entropy", "cross_entropy_with_logits", "kl_div")
SILENT = ("zero", "left out", "frequency", "drowned")
MEANT = 10
SATISFIED = 0.1
UNASKED = 1000
CHOSEN = 10_000
OPPOSED = -0.9
ALIKE = 3
LEAST = 1e-6  # a weight, where one is divided by it: an order, no limit


def check(trace: Trace, *, limit: float = 100.0, penalty: float = 10.0) -> Iterable[Fault]:
    """One fault for the two terms of the loss that differ most."""
    if silent := [w for w in trace.facts.get("wishes", []) if w["how"] in SILENT]:
        return [_report_class(silent[0])]
    if decayed := _find_decay(trace, penalty):
        return [decayed]
    terms = trace.facts.get("terms", [])
    if not terms:
        raise NotApplicable("the loss is no sum of terms that share parameters")
    pairs = [_order(pair, terms) for pair in trace.facts.get("pairs", [])]
    for judge in (_find_penalty, _find_drowned, _find_opposed):
        if found := judge(pairs, terms, penalty, limit):
            return [found]
    return []


def _find_decay(trace: Trace, penalty: float) -> Fault | None:
    """A weight decay of the optimizer that outweighs the loss."""
    held = [trace.sites[i].facts for i in trace.where("parameter") if "decay" in trace.sites[i].facts]
    pull = math.sqrt(sum(f["decay"] ** 2 for f in held))
    push = math.sqrt(sum(f["push"] ** 2 for f in held))
    if not 0 < penalty * push < pull:
        return None
    ratio = pull / push
    text = f"the optimizer's weight decay pulls {ratio:.3g} times as hard as the loss: all weights shrink"
    remedy = Remedy("lower-decay", ("optimizer",), "a weight decay of 0.0001 to 0.1", "advice")
    return _report(text, Evidence("decay over the loss", ratio, limit=f"< {penalty:g}"), remedy, ratio)


class Ordered(NamedTuple):
    """Two terms: the larger, the smaller, how many times larger it is, and their cosine."""

    large: int
    small: int
    ratio: float
    cosine: float


def _order(pair: PairFacts, terms: list[TermFacts]) -> Ordered:
    one, other = pair["norms"]
    i, j = (pair["first"], pair["second"]) if one >= other else (pair["second"], pair["first"])
    return Ordered(i, j, max(one, other) / min(one, other), pair["cosine"])


def _find_penalty(pairs: list[Ordered], terms: list[TermFacts], penalty: float, limit: float) -> Fault | None:
    """A penalty on the weights that outweighs every term of the data."""
    alone = {k for k, term in enumerate(terms) if not term["data"]}
    ratios = [ratio if i in alone else 1 / ratio for i, j, ratio, _ in pairs if {i, j} & alone]
    if not ratios or min(ratios) <= penalty:
        return None
    ratio, place = min(ratios), min(alone)
    factor = terms[place]["weight"] / ratio / MEANT
    text = f"{_name(place, terms)} is of the weights alone and pulls {ratio:.3g} times as hard as the data"
    remedy = Remedy("lower-penalty", ("loss",), f"a factor of {factor:.1g} leaves it a tenth", "advice")
    return _report(text, Evidence("penalty over data", ratio, limit=f"< {penalty:g}"), remedy, ratio)


def _find_drowned(pairs: list[Ordered], terms: list[TermFacts], penalty: float, limit: float) -> Fault | None:
    """A term of the data that another one drowns."""
    drowned = [p for p in pairs if p.ratio > limit and _is_open(p.small, terms) and _are_data(p, terms)]
    if not drowned:
        return None
    i, j, ratio, _ = max(drowned, key=lambda pair: pair.ratio)
    factors = abs(terms[i]["weight"] / terms[j]["weight"])
    if terms[j]["answers"] and not terms[i]["answers"] and ratio > UNASKED:
        factors = 1.0  # whatever its factor: the data are not learned
    elif terms[j]["answers"] and ratio > CHOSEN:
        factors = 1.0  # of what the batch asks for nothing is left
    elif factors < 1 / MEANT or (factors > MEANT and ratio < limit * factors):
        return None  # the smaller is made as large as it can be, or is as small as it was made
    text = f"{_name(i, terms)} pulls {ratio:.3g} times as hard as {_name(j, terms)} in what they share"
    chosen = f", with a factor {factors:.3g} times as large" if factors > MEANT else ": the second is drowned"
    why = f"one size for both: units, means, or a factor of {1 / ratio:.1g}"
    remedy = Remedy("balance-terms", ("loss",), why, "advice")
    number = Evidence("gradient of one over the other", ratio, limit=f"< {limit:g}")
    return _report(text + chosen, number, remedy, ratio, note=factors > MEANT)


def _are_data(pair: Ordered, terms: list[TermFacts]) -> bool:
    """Whether both are of the data, and not the whole less a part of it, as of a matrix its diagonal."""
    large, small = terms[pair.large], terms[pair.small]
    rest = large["kind"] == small["kind"] == "sum" and large["weight"] == -small["weight"]
    return large["data"] and small["data"] and not rest


def _are_errors(pair: Ordered, terms: list[TermFacts]) -> bool:
    return all(terms[k]["kind"].endswith(ERRORS) for k in (pair.large, pair.small))


def _is_open(place: int, terms: list[TermFacts]) -> bool:
    """Whether a term asks for anything that the shared weights must tell.

    It has a factor, a value that is not near its least, and more than one answer.
    """
    term = terms[place]
    unsatisfied = math.isnan(term["value"]) or abs(term["value"]) > SATISFIED
    return term["weight"] != 0 and unsatisfied and not _is_answered_by_a_bias(term, terms)


def _is_answered_by_a_bias(term: TermFacts, terms: list[TermFacts]) -> bool:
    """Whether it asks the same of all outputs of a head of its own.

    Not if a term of its kind asks for something else, as those of real and fake samples do.
    """
    asked = {t["constant"] for t in terms if t["kind"] == term["kind"] and not math.isnan(t["constant"])}
    return term["own"] and asked == {term["constant"]}


def _find_opposed(pairs: list[Ordered], terms: list[TermFacts], penalty: float, limit: float) -> Fault | None:
    """Two errors that undo each other; means of a critic do so on purpose."""
    undone = [
        pair for pair in pairs if pair.cosine < OPPOSED and pair.ratio < ALIKE and _are_errors(pair, terms)
    ]
    if not undone:
        return None
    i, j, _, cosine = min(undone, key=lambda pair: pair.cosine)
    text = f"{_name(i, terms)} and {_name(j, terms)} pull in opposite directions and undo each other"
    remedy = Remedy("project-gradients", ("loss",), "leave out what one takes back from the other", "advice")
    number = Evidence("cosine of the gradients", cosine, limit=f"> {OPPOSED:g}")
    return _report(text, number, remedy, 1.0, note=True)


def _name(place: int, terms: list[TermFacts]) -> str:
    term = terms[place]
    return f"term {place + 1} ({term['kind']}{' at ' + term['source'] if term['source'] else ''})"


def _report_class(wish: WishFacts) -> Fault:
    """The fault of weights that silence classes, or drown the rare ones."""
    place = f" at {wish['source']}" if wish["source"] else ""
    which = f"class {', '.join(str(c) for c in wish['classes'])}"
    share, remedy = wish["share"], Remedy("class-weights", ("loss",), "weights of 1 / count", "advice")
    if wish["how"] == "frequency":
        text = (
            f"the weights are the wrong way round{place}: {which}, the rarest, weighs {share:.2g} times the "
        )
        number = Evidence("weight of the rarest over the most frequent", share, limit="> 1")
        return _report(text + "most frequent one, and is drowned", number, remedy, 1 / max(share, LEAST))
    if wish["how"] == "drowned":
        text = f"the weights give {which}, a rare one, {share:.1%} of the loss{place}: all others are drowned"
        number = Evidence("share of the loss that a rare class has", share, limit="< 0.95")
        return _report(text, number, remedy, 1 / max(1 - share, LEAST))
    text = f"{which} is {share:.0%} of the labels and weighs nothing{place}: it is never learned"
    number = Evidence("share of labels of weight zero", share, limit="0")
    return _report(text, number, remedy, 1.0, note=wish["how"] == "left out")


def _report(text: str, evidence: Evidence, remedy: Remedy, ratio: float, note: bool = False) -> Fault:
    return blame_loss(text, evidence, remedy, STEPS, size=math.log(max(1.0, ratio)), note=note)


def sick() -> Case:
    """A squared error of prices beside a cross-entropy, with one body."""
    return _case(20000.0)


def healthy() -> Case:
    """The same in units of the prices' deviation."""
    return _case(1.0)


def _case(scale: float) -> Case:
    import torch
    from torch import nn
    from torch.nn import functional

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
        x = torch.randn(64, 16)
        y = torch.cat([scale * x[:, :1], torch.randint(0, 4, (64, 1)).float()], 1)

        def loss(out: Any, y: Any) -> Any:
            price = functional.mse_loss(out[:, 0], y[:, 0])
            return price + functional.cross_entropy(out[:, 1:], y[:, 1].long())

        return Case(net, (x, y), loss, story="a price and a class from one body")
