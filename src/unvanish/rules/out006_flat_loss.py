"""The loss itself is flat where the model stands: it is far from its least, and gives almost no slope.

Why it harms

A generator that lowers the chance of being found out,

    loss = log(1 - D),  dL/dz = -D -> 0 as D -> 0

learns least where it is worst: a discriminator that is sure of every fake passes almost nothing
back. Raising the chance to pass, -log D, has a slope of 1 there.

An example

    loss = torch.log(1 - discriminator(fake)).mean()                             # flat
    loss = -nn.functional.binary_cross_entropy_with_logits(z, torch.zeros_like(z))    # the same
    loss = nn.functional.binary_cross_entropy_with_logits(z, torch.ones_like(z))      # not flat

How it is measured

Logarithms of probabilities, and cross-entropies against targets that the loss makes itself, which
are to be made worse. Their mean slope, 1 - p for a logarithm of p, is below `limit`; an error far
below it. And labels that are smoothed until the right answer has less than `smoothed` more than
another; a power that leaves almost nothing of every sample; distances of embeddings that are alike
for all samples; a sigmoid without a logarithm that stands at the wrong end; and logits that are
cosines without a factor, so that the right answer never gets more than SURE, or times so small a
one that less than `limit` of the loss can ever be learned; and scores of a layer times so small a
number that all answers stay equal. A factor that is learned is left alone.

Limits

    limit = 0.05     of the largest slope: a discriminator that gives fakes 5 %. At the start it
                     gives a half
    smoothed = 0.25  of the whole that the right answer has more than another: smoothing is 0.1 as a
                     rule, and 0.6 at most against noisy labels
    FLATTER = 5      times flatter than the limit is an error
    PLAIN = 1.5      factor of cosines below which there is none: published ones are 2 and more
    SURE = 0.1       that the right class gets at best: without a factor, 20 classes (0.13) were
                     learned as well as with 16, of 50 (0.05) 84 instead of 91 %, of 100 (0.03) 62
                     instead of 82 % (measured, SGD). Of yes and no every answer is bounded
    FAINT = 0.015    that a layer's scores are multiplied by at least: of digits a small net names
                     91 % without a factor, with 0.1 it is 69, with 0.03 57 and with 0.01 17 %
                     (measured, SGD; Adam 87, 83 and 74); published ones go down to 1/64
    LEAST = 1e-12    is the least slope that counts: an order, no limit

Remedies

Raise the likelihood of the other answer instead of lowering that of this one (retrain). Train the
discriminator less, smooth its labels, or use a loss without saturation (advice).

When it is wrong

A loss that is flat because it has reached its aim has no such sign, and is not reported.

References: Goodfellow et al. 2014, section 3; Arjovsky and Bottou 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault, blame_loss
from unvanish.rules._tiers import OUTPUT

NEEDS = ("static", "step")
EXPLAINS = ("GRF004", "INI001", "OUT001", "PRC001", "ACT001")
FLATTER = 5
LEAST = 1e-12
PLAIN, SURE, FAINT = 1.5, 0.1, 0.015
LEFT = {  # what is left of the loss: the cause, the name of the number, and what to do
    "smoothed": (
        "its labels are smoothed{place} until the right answer is asked {share:.2g} of 1 more than another",
        "right answer less another",
        Remedy("less-smoothing", ("loss",), "0.1 is usual, and leaves 0.9", "advice"),
    ),
    "power": (
        "a power{place} leaves {share:.1e} of the largest sample, and less of all others",
        "what the power leaves",
        Remedy("lower-exponent", ("loss",), "a focal loss has an exponent of 1 to 5", "advice"),
    ),
    "collapsed": (
        "it compares embeddings{place} that are alike for all samples: no distance exceeds {share:.0e}",
        "most that embeddings differ, of their size",
        Remedy("redraw-embedding", ("loss",), "draw the last layer anew, and train it slower", "advice"),
    ),
}


def check(trace: Trace, *, limit: float = 0.05, smoothed: float = 0.25) -> Iterable[Fault]:
    """One fault if a likelihood that is to be lowered is as good as one, or labels leave no answer much."""
    if not trace.where("output"):
        raise NotApplicable("no loss was seen")
    flat = [f for f in trace.facts.get("ascents", []) if not f["given"] and f["slope"] < limit]
    if not flat:
        return _find_left(trace, smoothed) or _find_hot(trace, limit) or _find_faint(trace)
    worst = min(flat, key=lambda f: f["slope"])
    slope, what = worst["slope"], worst["kind"]
    what += f" at {worst['source']}" if worst["source"] else ""
    how = "it drives an output" if worst["kind"] == "sigmoid" else "it lowers a likelihood"
    return [
        Fault(
            severity="error" if slope < limit / FLATTER else "warning",
            cause=f"the loss is flat where the model stands: {how} ({what}), "
            f"whose slope is {slope:.1e} of its largest, and least where the model is worst",
            sites=("loss",),
            evidence=(Evidence("slope of the loss, relative", slope, limit=f"> {limit:g}", site="loss"),),
            remedies=(
                Remedy(
                    "raise-other-likelihood", ("loss",), "-log D(G(z)) has its full slope there", "advice"
                ),
                Remedy("calm-discriminator", ("loss",), "or smooth its labels, train it less", "advice"),
            ),
            direction="vanishing",
            tier=OUTPUT,
            size=-math.log(max(slope, LEAST)),
        )
    ]


def _find_left(trace: Trace, limit: float) -> list[Fault]:
    """One fault if smoothed labels or a power leave hardly anything of the loss, or nothing differs in it."""
    for wish in trace.facts.get("wishes", []):
        how, share, place = wish["how"], wish["share"], f" at {wish['source']}" if wish["source"] else ""
        if how not in LEFT or (how == "smoothed" and share >= limit):
            continue
        text, what, remedy = LEFT[how]
        text = text.format(place=place, share=share)
        return [
            _report(text, Evidence(what, share, limit=f"> {limit:g}" if how == "smoothed" else ""), remedy)
        ]
    return []


def _find_hot(trace: Trace, limit: float) -> list[Fault]:
    """One fault if logits are cosines that a temperature makes so small that no answer can be sure."""
    for i in trace.where("output"):
        facts, kind = trace.sites[i].facts, trace.sites[i].kind
        scale, classes = facts.get("cosine_scale", math.inf), facts.get("classes", 0)
        two = kind == "binary_cross_entropy_with_logits"
        if facts.get("cosine_learned") or not math.isfinite(scale) or (classes < 2 and not two):
            continue
        sure, whole, best = _find_best(scale, 0 if two else classes)
        plain = scale < PLAIN and (two or sure < SURE)
        if not plain and (two or 1 - best / whole >= limit):
            continue
        whose = "an answer" if two else f"the right one of {classes}"
        text = (
            f"its logits are cosines times {scale:.2g}, so {whose} gets a probability of {sure:.2g} at most: "
            f"at chance it is {whole:.4g}, at best {best:.4g}"
        )
        advice = Remedy(
            "set-temperature",
            ("loss",),
            "divide the cosines by a temperature of 0.05 to 0.2 (multiply them by 5 to 64)",
            "advice",
        )
        return [_report(text, Evidence("most that the right answer gets", sure, site="loss"), advice)]
    return []


def _find_faint(trace: Trace) -> list[Fault]:
    """One fault if the scores of a layer are made so small that no answer is surer than another."""
    for i in trace.where("output"):
        factor = trace.sites[i].facts.get("logit_factor", 1.0)
        if factor < FAINT:
            text = (
                f"the model's scores are multiplied by {factor:.2g} before {trace.sites[i].kind}; all "
                f"answers stay nearly equal until its last layer is {1 / factor:.2g} times as large"
            )
            advice = Remedy("set-temperature", ("loss",), "leave out the factor", "advice")
            number = Evidence("factor of the scores", factor, limit=f"> {FAINT:g}", site="loss")
            return [_report(text, number, advice)]
    return []


def _find_best(scale: float, classes: int) -> tuple[float, float, float]:
    """The largest probability of the right answer, the loss at chance, and the least loss.

    The best cosines are those of a simplex: 1 with the own class, -1 / (classes - 1) with each other one.
    """
    if not classes:
        return 1 / (1 + math.exp(-scale)), math.log(2), math.log1p(math.exp(-scale))
    best = math.log1p((classes - 1) * math.exp(-scale * classes / (classes - 1)))
    return math.exp(-best), math.log(classes), best


def _report(text: str, evidence: Evidence, remedy: Remedy) -> Fault:
    return blame_loss(f"the loss is flat: {text}", evidence, remedy, OUTPUT, direction="vanishing")


def sick() -> Case:
    """A generator that minimises log(1 - D), before a discriminator that is sure."""
    return _case(saturating=True)


def healthy() -> Case:
    """The same discriminator, and a generator that maximises log D."""
    return _case(saturating=False)


def _case(saturating: bool) -> Case:
    import torch
    from torch import nn
    from torch.nn import functional

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        judge: Any = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
        nn.init.constant_(judge[2].bias, -9.0)

        def loss(fake: Any, real: Any) -> Any:
            z = judge(fake)
            return torch.log(1 - torch.sigmoid(z)).mean() if saturating else functional.softplus(-z).mean()

        batch = torch.randn(64, 8), torch.randn(64, 4)
        return Case(net, batch, loss, story="a generator before a discriminator that is sure")
