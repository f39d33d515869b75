"""The loss has the wrong sign: as it falls, the answers become worse.

Why it harms

Training goes down the gradient. Of a likelihood without its minus, or an error with one,

    loss = mean log p(right answer),  or  loss = -mean (p - y)^2

less is worse: the loss falls below zero and on without end, and the accuracy below chance.

An example

    loss = log_p.gather(1, y[:, None]).mean()    # without its minus
    loss = -nn.functional.cross_entropy(z, y)    # with one too many

How it is measured

The loss's gradient at the results of the losses, logarithms and similarities that it is made of.
A cross-entropy or an error against the batch's targets that is to be raised, or a likelihood that
the targets pick, with equal weights, or a cosine with the targets (or, if it is all of the loss,
with what a teacher gives) that is to be lowered, is a fault; so is a loss by hand that drives
every output away from the targets' yes and no, unless a distance made the output, the whole
output against targets that are numbers, or embeddings away from their own label. So is a
log-probability that the model returns, if it is all of the loss and falls with it, an error
against a teacher's answer that makes the whole loss and is raised, the logarithms of yes and of
no that do and are lowered; and a policy's loss that makes what was done less likely wherever its
number in the batch (a reward, or an advantage made of it) is above zero, and more likely wherever
it is below; and an optimizer with maximize=True under an error.
Weights of a cross-entropy that are below zero for labels of the batch, and labels smoothed until
the right class has less than another, turn the sign too.
In a watched training, with one of torch's own loss modules: the gradient that arrives at it is
negative at each step that was heard, the steps follow the gradient upwards, or at looks the
gradient of the step points the other way than that of its backward.

Limits

A sign is right or wrong. In a watched training:

    HEARD = 3        steps at which the gradient of the loss was heard
    READ = 16        readings of weights, of whose cosines the median is taken
    UP = -0.1        cosine of the change with the negative gradient: with Adam it is 0.5 or more on
                     the way down
    STEADY = 0.9     of all steps lead up: with momentum or decay, steps too long do so for a while
    BACK = -0.5      cosine of the gradient at the step with the same one after its backward, at
                     HEARD looks: clipping, whatever its kind, leaves it above zero
    SHRUNK = 0.5     cosine of the change with the negative weights: above it a decay moves them

Remedies

Change the sign (retrain).

When it is wrong

Some raise an error on purpose: an adversary that shall confuse another net, or a model that shall
forget. The absolute value of a loss less a constant (flooding, capacity) turns the sign on purpose
below it, and is left alone. So are targets that the loss makes itself, as of a generator, and
likelihoods that are lowered beside others that are raised (preferences, unlikelihood). Of a cost
for each sample in place of a reward the sign is right, and the finding says so.

References: Goodfellow et al. 2016, section 5.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.loss_facts import AscentFacts, WishFacts
from unvanish.core.trace import Trace
from unvanish.rules import _history, _learning
from unvanish.rules._fault import Fault, blame_loss
from unvanish.rules._tiers import NO_STEP

NEEDS = ("static",)
LIVE = True
AT_ONCE = True
HEARD = 3
UP, SHRUNK, STEADY, READ = -0.1, 0.5, 0.9, 16
BACK = -0.5
EXPLAINS = ("NUM001", "OUT006", "OUT003", "INI001", "OPT001", "OPT002", "ACT003", "DEP001")
LIKELIHOODS = (
    "log",
    "log1p",
    "log_sigmoid",
    "logsigmoid",
    "log_softmax",
    "softplus",
    "gather",
    "getitem",
    "index",
)
SIMILARITIES = ("cosine_similarity", "overlap", "correlation")


def check(trace: Trace) -> Iterable[Fault]:
    """One fault if a loss about the batch's targets has the wrong sign, or asks for the reverse of them."""
    if trace.facts.get("live"):
        return _judge_steps(trace)
    if not trace.where("output"):
        raise NotApplicable("no loss was seen")
    wrong = [facts for facts in trace.facts.get("ascents", []) if facts["given"]]
    if trace.facts.get("maximizes"):
        return [] if wrong or not _reads_targets(trace) else [_report_climb()]
    if wrong and wrong[0]["kind"] == "reward":
        return [_report_reward(wrong[0])]
    reversing = [f for f in trace.facts.get("wrong_gradients", []) if f["identity"] and f["factor"] < 0]
    if not wrong and reversing and (twice := trace.facts.get("turned_twice", [])):
        return [_report_twice(twice[0], reversing[0]["function"])]
    if not wrong:
        turned = [w for w in trace.facts.get("wishes", []) if w["how"] in ("negative", "inverted")]
        return [_report_wish(turned[0])] if turned else []
    loss = float(trace.facts.get("loss", -1.0))
    return [
        blame_loss(
            f"the loss has the wrong sign: as it falls, {_describe(wrong[0])}, and the answers become worse",
            Evidence("loss", loss, limit="> 0" if loss < 0 else "", site="loss"),
            Remedy("flip-sign", (), "the negative of it falls as the answers become right"),
            NO_STEP,
        )
    ]


def _report_twice(facts: AscentFacts, function: str) -> Fault:
    """The fault of a term with a minus behind a function that turns its gradient round already."""
    place = f" at {facts['source']}" if facts["source"] else ""
    return blame_loss(
        f"the {facts['kind']}{place} enters with a minus, and {function} turns its gradient round as well: "
        "what lies above is taught to be wrong, and what lies below to help it",
        Evidence("sign of the term", "-", limit="+", site="loss"),
        Remedy(
            "flip-sign", (), "add the term: the reversal alone makes the features hide it", safety="advice"
        ),
        NO_STEP,
    )


def _reads_targets(trace: Trace) -> bool:
    """Whether one of torch's losses compares the output with the batch's targets."""
    return any(trace.sites[i].facts.get("given") for i in trace.where("output"))


def _report_climb() -> Fault:
    """The fault of an optimizer that goes up a loss that is to fall."""
    return blame_loss(
        "the optimizer goes up (maximize=True), and the loss is an error that is to fall: the answers become "
        "worse at each step",
        Evidence("maximize", "True", limit="False", site="loss"),
        Remedy("flip-sign", (), "maximize=False", safety="advice"),
        NO_STEP,
    )


def _report_reward(facts: AscentFacts) -> Fault:
    """The fault of a policy that is led away from its rewards."""
    place = f" at {facts['source']}" if facts["source"] else ""
    return blame_loss(
        f"the loss{place} makes what was done less likely the larger its number in the batch is: right for a "
        "cost, but of a reward or an advantage the sign is wrong",
        Evidence("likelihood of what was rewarded", "lowered", limit="raised", site="loss"),
        Remedy("flip-sign", (), "minus the mean of log-probability times advantage (reward less value)"),
        NO_STEP,
    )


def _describe(facts: AscentFacts) -> str:
    """What happens to the answers as the loss falls."""
    kind, place = facts["kind"], f" at {facts['source']}" if facts["source"] else ""
    if kind == "embedding":
        return "embeddings leave those of their own label for those of others"
    if kind == "both answers":
        return f"the likelihood of yes at some and of no at others{place} is lowered"
    if kind == "log-probability":
        return "the log-probability that the model returns is lowered"
    if kind in SIMILARITIES:
        return f"the {kind}{place} with the targets is lowered"
    if kind in LIKELIHOODS:
        return f"the likelihood of the targets ({kind}{place}) is lowered"
    return f"the {kind}{place} against the targets is raised"


def _report_wish(wish: WishFacts) -> Fault:
    """The fault of weights below zero, or of labels smoothed until another class has more."""
    place = f" at {wish['source']}" if wish["source"] else ""
    share = wish["share"]
    if wish["how"] == "negative":
        classes = ", ".join(str(c) for c in wish["classes"])
        whose = f"class {classes} have" if classes else "samples have"
        return blame_loss(
            f"the weights of {whose} the wrong sign{place}: for {share:.0%} of the labels the loss falls as "
            "the right answer becomes less likely",
            Evidence("share of labels with a negative weight", share, limit="0", site="loss"),
            Remedy("positive-weights", ("loss",), "weights above zero, say 1 / count of the class", "advice"),
            NO_STEP,
        )
    return blame_loss(
        f"the labels are smoothed until the right class is asked for less than the others{place}: its share "
        f"less that of another is {share:.2g}",
        Evidence("share of the right class less another's", share, limit="> 0", site="loss"),
        Remedy("less-smoothing", ("loss",), "a smoothing of 0.1 leaves the right class 0.9", "advice"),
        NO_STEP,
    )


def _judge_steps(trace: Trace) -> list[Fault]:
    """One fault if a loss of torch's own is raised at each step of a watched training."""
    pull, along = _history.read_steps(trace, "pull"), _history.read_steps(trace, "along")
    pull, along = pull[np.isfinite(pull)], along[np.isfinite(along)]
    if "plan" not in trace.facts or not trace.facts["plan"]["error"] or len(pull) < HEARD:
        raise NotApplicable("no loss module of torch's own was heard at three steps")
    ways = trace.facts.get("ways", [])[-HEARD:]
    if len(ways) == HEARD and max(ways) < BACK and pull.min() > 0:
        cause = (
            "the gradient is turned round between its backward and the step, so the loss is raised: a limit "
            "below zero in clip_grad_norm_, or a minus sign on .grad"
        )
        remedy = Remedy("flip-sign", (), "leave the gradient's sign as the backward made it", safety="advice")
    elif pull.max() < 0:
        cause = f"the loss is raised: the gradient that arrives at it is {np.median(pull):.3g}, not 1"
        remedy = Remedy("flip-sign", (), "backward from the loss, not from its negative", safety="advice")
    elif pull.min() > 0 and _climbs(trace, along):
        cause = (
            "the steps follow the gradient upwards, so the loss is raised: maximize=True, or a flipped sign"
        )
        remedy = Remedy("flip-sign", (), "an optimizer that goes down: maximize=False", safety="advice")
    else:
        return []
    return [
        Fault(
            severity="error",
            cause=cause,
            sites=("loss",),
            evidence=(
                Evidence("gradient at the loss", float(np.median(pull)), limit="> 0", site="loss"),
                *(
                    [
                        Evidence(
                            "cosine of the steps with the way down",
                            float(np.median(along[-READ:])),
                            limit="> 0",
                        )
                    ]
                    if len(along)
                    else []
                ),
            ),
            remedies=(remedy,),
            direction="none",
            tier=NO_STEP,
        )
    ]


def _climbs(trace: Trace, along: _history.Floats) -> bool:
    """Whether the steps follow the gradient upwards, and no decay shrinks the weights so."""
    shrink = _history.read_steps(trace, "shrink")
    shrink = shrink[np.isfinite(shrink)][-READ:]
    if len(along) < READ or not np.median(along[-READ:]) < UP or np.median(shrink) > SHRUNK:
        return False
    if (along < 0).mean() < STEADY:  # a step that is too long points up now and then
        return False
    return not _learning.falls(_history.read_steps(trace, "loss"))


def sick() -> Case:
    """A log-likelihood without its minus."""
    return _case(1.0)


def healthy() -> Case:
    """The same with its minus."""
    return _case(-1.0)


def _case(sign: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5), nn.LogSoftmax(1))
        batch = torch.randn(64, 16), torch.randint(0, 5, (64,))

        def loss(log_p: Any, y: Any) -> Any:
            return sign * log_p.gather(1, y[:, None]).mean()

        return Case(net, batch, loss, story="a log-likelihood without its minus")
