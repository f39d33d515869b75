"""The targets are of a size, an offset or a kind that the output is far from.

Why it harms

A layer at its usual start gives numbers of size one. Towards targets of 10,000 an optimizer whose
steps do not depend on the gradient's size (Adam) goes 0.001 of a weight a step,

    steps ~ |target| / (rate * width),  and a plain gradient of a squared error grows with |target|

so one crawls and the other diverges. An offset far larger than the spread is learned first, and
what differs between the samples is below it. Binary cross-entropy with targets beyond 0 and 1 has
no least value at all: the loss falls without end.

An example

    y = table["price"]                           # 180,000 and more
    y = (y - y.mean()) / y.std()                 # predictions go back by * std + mean

How it is measured

Mean and deviation of the targets (of each column of a table) against the size of the output, where
a squared or absolute error compares them and no function bounds the output (a rectifier or softplus
does not bound it from above, and is judged by the size alone): the size of a target is above
`limit` times that of the output and of one, or its offset above `offset` deviations and NEAR
times the output, or all of it below `small` of the output. Columns whose deviations differ by
`uneven` are named too. Under binary cross-entropy, the share of targets beyond 0 and 1. Labels of
one class only, where the batch gives them and there are ENOUGH; for two classes that is a note.
Labels of a class that the loss is told to ignore.
Targets that are one constant ask for no scale.

Numbers of classes under a squared or absolute error: labels that are whole numbers in the batch,
from 0 on without a gap. A fault if they are equally frequent as far as chance goes (chi-square up
to 4 deviations above its mean), tokens of a table, or stand against a score for each class; else a
note, for grades and counts are whole numbers too.

Kinds: targets of 0 and 1 where a loss expects -1 and 1 (hinge, soft margin, ranking, by hand too),
of 0 and 255 that multiply probabilities, numbers beyond 0 and 1 for probabilities of classes, and a
CTC loss with fewer steps than labels.

Limits

    limit = 100      times the output's size, and one: targets as they are usually prepared have up
                     to 5, raw ones (years, prices, pixels) 100 and more
    offset = 30      deviations: ages have 3, temperatures in Kelvin 30
    small = 0.001    of the output's size, which at the start is about one
    uneven = 1000    times between the deviations of two columns
    NEAR = 10        times the output's size: what is nearer is soon learned by the bias. An output
                     that is itself larger is at fault, not small targets
    BEYOND = 0.01    of the targets of a binary cross-entropy: fewer are marks
    SHORT = 0.05     of the samples of a CTC loss with fewer steps than labels: a few are dropped on
                     purpose
    ENOUGH = 32      labels: with fewer, a batch may hold one class by chance; so may fewer maps of
                     labels (a note)
    LEFT_OUT = 0.5   of the labels, one a sample, of a class that ignore_index names: padding and
                     marks are no classes of a sample

Remedies

Standardise the targets, each column by itself, with the training set's mean and deviation; undo it
on predictions (retrain). Bring targets of a binary cross-entropy into 0 to 1, say masks of 255
divided by 255 (advice). Shuffle the data, or look for what was lost (advice).

When it is wrong

An output that is scaled inside the model, by exp or a constant, is judged by what it gives.

References: LeCun et al. 1998, section 4.3; Bishop 1995, section 8.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.facts import SiteFacts
from unvanish.core.loss_facts import ClassNumberFacts, WishFacts
from unvanish.core.trace import Site, Trace
from unvanish.rules._fault import Fault, blame_loss
from unvanish.rules._tiers import DATA

NEEDS = ("static", "step")
EXPLAINS = ("INI001", "INI002", "ACT001", "ACT003", "PRC002", "DEP001")
ERRORS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "difference")
NEAR = 10
BEYOND = 0.01
ENOUGH = 32
SHORT = 0.05
LEFT_OUT = 0.5
ONE_SIDED = ("relu", "softplus", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish")
Column = tuple[float, float]  # mean and deviation


def check(
    trace: Trace, *, limit: float = 100.0, offset: float = 30.0, small: float = 1e-3, uneven: float = 1000.0
) -> Iterable[Fault]:
    """One fault if the targets are far from what the output gives."""
    sites = [trace.sites[i] for i in trace.where("output")]
    known = [s for s in sites if any(name in s.facts for name in ("target_std", "labels", "beyond", "short"))]
    if unsigned := [w for w in trace.facts.get("wishes", []) if w["how"] in ("unsigned", "scaled")]:
        return [_report_unsigned(unsigned[0])]
    if numbers := trace.facts.get("class_numbers"):
        return [_report_numbers(numbers)]
    if not known:
        raise NotApplicable("no loss compares an output with targets")
    for site in known:
        if fault := _judge_kind(site) or _judge_size(site, limit, offset, small, uneven):
            return [fault]
    return []


def _judge_kind(site: Site) -> Fault | None:
    """Targets that a binary cross-entropy has no answer for, or labels of one class."""
    facts = site.facts
    share = facts.get("beyond", 0.0)
    if site.kind.startswith("binary") and share > BEYOND:
        low, high = facts["target_low"], facts["target_high"]
        text = f"the targets go from {low:.3g} to {high:.3g}, but {site.kind} asks for 0 to 1: it has no"
        advice = Remedy("scale-targets", ("loss",), "bring them into 0 to 1", "advice")
        number = Evidence("share of targets beyond 0 and 1", share, limit=f"< {BEYOND:g}")
        return _report(text + " least value, and the logits grow without end", number, advice)
    if site.kind == "cross_entropy" and share > BEYOND:
        low, high = facts["target_low"], facts["target_high"]
        text = (
            f"the targets go from {low:.3g} to {high:.3g}, but cross_entropy takes numbers of this shape for "
        )
        number = Evidence("share of targets beyond 0 and 1", share, limit=f"< {BEYOND:g}")
        advice = Remedy("give-labels", ("loss",), "give the classes as integers, or probabilities", "advice")
        return _report(text + "probabilities of the classes", number, advice)
    if (short := facts.get("short", 0.0)) > SHORT:
        text = f"{short:.0%} of the samples have fewer steps than labels: ctc_loss has no path for them, and "
        number = Evidence("share of samples that are too short", short, limit=f"< {SHORT:g}")
        advice = Remedy("longer-inputs", ("loss",), "less pooling, or leave these samples out", "advice")
        return _report(text + "zero_infinity gives them no gradient", number, advice)
    if facts.get("labels") == 0 and facts.get("answers", 0) > 0:
        text = f"all {facts['answers']} labels are ignored: the loss has no sample to learn from"
        advice = Remedy("look-for-labels", ("loss",), "look for the lost labels", "advice")
        return _report(text, Evidence("kinds of labels", 0.0, limit="> 1"), advice)
    if (left := facts.get("left_out", 0.0)) > LEFT_OUT:
        text = f"{left:.0%} of the labels are of a class that {site.kind} ignores (ignore_index): it is "
        advice = Remedy("look-for-labels", ("loss",), "an ignore_index that is no class, say -100", "advice")
        return _report(
            text + "never learned", Evidence("labels left out", left, limit=f"< {LEFT_OUT:g}"), advice
        )
    many = facts.get("answers", 0) >= ENOUGH and facts.get("given", False)
    if not many or facts.get("labels") != 1 or facts.get("classes", 0) < 2:
        return None
    advice = Remedy("shuffle-data", ("loss",), "shuffle the data, or look for the lost labels", "advice")
    text = f"all {facts['answers']} labels are of one class: a constant answer is right, and is learned"
    few = facts.get("classes") == 2 or 0 < facts.get("maps", 0) < ENOUGH
    return _report(text, Evidence("kinds of labels", 1.0, limit="> 1"), advice, note=few)


def _report_numbers(numbers: ClassNumberFacts) -> Fault:
    """The fault of labels that are taken for quantities."""
    place, kinds, how = (
        f" at {numbers['source']}" if numbers["source"] else "",
        numbers["kinds"],
        numbers["how"],
    )
    text = (
        f"the targets are the whole numbers 0 to {kinds - 1}, and the loss{place} takes them for quantities: "
    )
    harm = {
        "each": "every one of the scores is to become the number of the class",
        "tokens": "they are tokens, whose order means nothing",
    }
    doubt = "if they name classes, their order means nothing, and between two of them lies a third"
    advice = Remedy("use-cross-entropy", ("loss",), "a score for each class, under cross-entropy", "advice")
    number = Evidence("kinds of labels", kinds, site="loss")
    return _report(text + harm.get(how, doubt), number, advice, note=how == "uneven")


def _report_unsigned(wish: WishFacts) -> Fault:
    """The fault of targets 0 and 1 under a loss of signs."""
    place = f" at {wish['source']}" if wish["source"] else ""
    if wish["how"] == "scaled":
        text = (
            f"the targets are 0 and {wish['share']:g}, but the loss{place} multiplies them with probabilities"
        )
        advice = Remedy("scale-targets", ("loss",), f"divide them by {wish['share']:g}", "advice")
        return _report(text, Evidence("largest target", wish["share"], limit="1"), advice)
    text = f"the targets are 0 and 1, but the loss{place} expects -1 and 1 and multiplies by them: 0"
    advice = Remedy("sign-targets", ("loss",), "2 * y - 1", "advice")
    return _report(text + " asks for nothing", Evidence("least target", 0.0, limit="-1"), advice)


def _judge_size(site: Site, limit: float, offset: float, small: float, uneven: float) -> Fault | None:
    """Targets whose size, offset or columns are far from the output."""
    facts = site.facts
    last = facts.get("activation")
    bounded = last and last not in ONE_SIDED
    if site.kind not in ERRORS or bounded or facts.get("target_std", 0.0) <= 0:
        return None
    own = facts["read_rms"]
    reach = max(1.0, own)
    columns = [(mean, std) for mean, std in _list_columns(facts) if std > 0]
    if not columns:
        return None
    size = max(max(abs(mean), std) for mean, std in columns)
    offsets = [abs(m - facts["read_mean"]) / s for m, s in columns if abs(m) > NEAR * reach]
    far = max(offsets, default=0.0)
    ratio = max(s for _, s in columns) / min(s for _, s in columns)
    shown = f"the targets have mean {facts['target_mean']:.3g} and deviation {facts['target_std']:.3g}"
    if size > limit * reach:
        text = f"{shown}, but the output is of size {own:.2g}: {size / reach:.0f} times too far for its steps"
        number = Evidence("size over the output's", size / reach, limit=f"< {limit:g}")
    elif last:
        return None
    elif far > offset:
        text = f"{shown}: what differs between the samples is {far:.0f} times smaller than the offset"
        number = Evidence("offset over the deviation", far, limit=f"< {offset:g}")
    elif ratio > uneven:
        text = f"the columns of the targets differ {ratio:.3g} times: the loss sees the large ones alone"
        number = Evidence("largest over least deviation", ratio, limit=f"< {uneven:g}")
    elif size < small * own and own <= NEAR:
        text = f"{shown}, but the output is of size {own:.2g}: the loss sees the output's own size alone"
        number = Evidence("size over the output's", size / own, limit=f"> {small:g}")
    else:
        return None
    return _report(text, number, _standardise(facts), float(number.value))


def _list_columns(facts: SiteFacts) -> tuple[Column, ...]:
    return facts.get("target_columns") or ((facts["target_mean"], facts["target_std"]),)


def _standardise(facts: SiteFacts) -> Remedy:
    columns = _list_columns(facts)
    means, stds = [c[0] for c in columns], [c[1] or 1.0 for c in columns]
    why = "subtract the training set's mean, divide by its deviation; undo it on predictions"
    if facts.get("activation"):  # which gives nothing below zero
        means, stds = [0.0] * len(means), [math.hypot(*c) or 1.0 for c in columns]
        why = "divide by the training set's root mean square; undo it on predictions"
    numbers = {"means": means, "stds": stds} if len(columns) > 1 else {"mean": means[0], "std": stds[0]}
    return Remedy("standardise-target", (), why, parameters=numbers)


def _report(text: str, evidence: Evidence, remedy: Remedy, size: float = 1.0, note: bool = False) -> Fault:
    return blame_loss(text, evidence, remedy, DATA, size=math.log(max(1.0, size)), note=note)


def sick() -> Case:
    """Targets of some ten thousands."""
    return _case(20000.0, 8000.0)


def healthy() -> Case:
    """The same targets, standardised."""
    return _case(0.0, 1.0)


def _case(mean: float, std: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
        x = torch.randn(64, 16)
        y = mean + std * x[:, :4].sum(1, keepdim=True) / 2
        return Case(net, (x, y), nn.MSELoss(), story="targets of some ten thousands")
