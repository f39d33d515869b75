"""The reading along the depth that several rules share: its evidence, and the fault that it names.

Limits

Of the reading along the depth:

    RATIO = 3            nats, if the rule has no limit of its own for the depth
    NOISE = 1.5          times sqrt(KAPPA sum 1/n) over the layers' widths n is the least limit:
                         three standard deviations of chance in a narrow net
    KAPPA = 5            of a ReLU: ln ||d|| deviates by sqrt(KAPPA sum 1/n) / 2 (Hanin and Nica
                         2020)
    POSITIONS = 9        of an image count towards the width: a kernel of 3 x 3 sees as many
    ERROR = 2            times the limit, so at least 6 nats, is an error: from 5.4 to 6.6 nats
                         nets train in part, beyond 10 not at all (measured, SGD and Adam)
    NORMALISED = 1.833   times the limit, 5.5 nats, if most layers are normalised: a gradient
                         counts relative to its weights there. MobileNet and GoogLeNet train, and
                         lie between 3 and 5.5
    RELU = 0.347         nats that a ReLU costs and its weights make up for (He et al. 2015): so
                         much of an activation's loss is not held against it
    CONTRACTING = -1     nats: an activation of rms slope under 0.37 contracts. A sigmoid costs at
                         least 1.4, a ReLU 0.35
    STEEP = 0.7          of that is enough in one row; the mean over the rows must reach all of it
    PINCHED = 2          nats from the median of all layers: such weights belong to one odd layer.
                         Those of healthy nets lie within 1.8 (measured)
    SATURATED = 0.5      of the units: a row with more flat ones has lost its gradient to
                         saturation, not to its slope (the limit of ACT001)
    SATURATION = -1      nats that all saturated rows cost together: less is no cause
    POLE = 3             nats of a divisor below the usual one: a row of zeros under a normalisation
                         by hand, whose huge gradient changes no weight, is left out. Norms of 8
                         random features and more lie within 2
    SHARE = 0.1          of the loss must lie with weights and slopes for the weights to be its
                         cause: weights that lose nothing are not
    DRAWN = 3            times n_in times the variance is 1 where torch itself draws the weights
    START = 0.1          of torch's own size of weights, Var W = 1 / (3 n_in): layers as they come.
                         So many of them as are no error yet are a note: radiance fields, operators
                         and encoders are published with them and train, if more slowly than drawn
                         again
    BEARS = 0.5          of the loss must lie with activations or residual sums for these to be
                         its cause: the larger part
"""

from __future__ import annotations

import math
from dataclasses import replace

from unvanish.core import depth
from unvanish.core.diagnosis import Evidence, NotApplicable, Remedy, Severity
from unvanish.core.ledger import DECADE
from unvanish.core.limits import BEARS, RATIO
from unvanish.core.trace import Trace
from unvanish.rules import _places, _smoothed
from unvanish.rules._fault import Fault, identify
from unvanish.rules._tiers import MEASURED, REMARK

START, DRAWN = 0.1, 3


def read(trace: Trace, limit: float = RATIO) -> depth.Depth | None:
    """The reading of the main depth axis; None if there is no depth to judge."""
    return depth.read(trace, limit=limit)


def blame(rule: str, trace: Trace, limit: float) -> depth.Depth | None:
    """The reading if it names this rule as the cause; `rule`: its module. NotApplicable without a depth.

    None where means over neighbours make all nodes alike: other weights or slopes would not keep them apart.
    """
    found = require(trace, limit)
    return found if blames(found, rule) and not _smoothed.find(trace) else None


def blames(found: depth.Depth, rule: str) -> bool:
    """Whether the reading names this rule as the cause; `rule`: its module."""
    named = identify(rule)
    return named is not None and found.cause == named[0]


def require(trace: Trace, limit: float) -> depth.Depth:
    """The reading of the main depth axis; NotApplicable if there is no depth to judge."""
    found = read(trace, limit)
    if found is None:
        raise NotApplicable("the model has fewer than two hidden layers in a row that get a gradient")
    return found


def give_evidence(found: depth.Depth) -> tuple[Evidence, ...]:
    """The two numbers that every depth finding is held against."""
    judged = "first to last layer" if found.pinched else "trend over the layers"
    return (
        Evidence(f"gradient's ln ratio, {judged}", found.ratio, unit="nats", limit=f"+-{found.limit:.2g}"),
        Evidence(
            f"the same over {_count_layers(found)}",
            found.ratio / DECADE,
            unit="decades",
            limit=f"+-{found.limit / DECADE:.2g}",
        ),
    )


def report(
    trace: Trace,
    found: depth.Depth,
    *,
    cause: str,
    evidence: tuple[Evidence, ...],
    remedies: tuple[Remedy, ...],
    worst: Severity = "error",
    usual: bool = False,
) -> list[Fault]:
    """The one fault of a rule that the reading blames.

    `worst`: the highest severity it may have; `usual`: what is no error is a note, not a warning.
    """
    mild: Severity = "note" if usual else "warning"
    return [
        Fault(
            severity=worst if found.severity == "error" else mild,
            cause=cause,
            sites=_places.label(trace, found.culprits),
            evidence=(*give_evidence(found), *evidence),
            remedies=remedies,
            direction=found.direction,
            tier=REMARK if usual and found.severity != "error" else MEASURED,
            size=abs(found.ratio),
        )
    ]


def describe(found: depth.Depth) -> str:
    """The harm in words: "the gradient loses 17.2 decades over 30 layers"."""
    verb = "loses" if found.ratio < 0 else "gains"
    return f"the gradient {verb} {abs(found.ratio) / DECADE:.1f} decades over {_count_layers(found)}"


def _count_layers(found: depth.Depth) -> str:
    return f"{found.steps} layer{'' if found.steps == 1 else 's'}"


def judge_weights(
    rule: str, trace: Trace, limit: float, *, size: str, than: str, effect: str, last: Remedy
) -> list[Fault]:
    """The fault of the rules on the weights' size: they are "too small", "smaller", and a layer's effect."""
    found = blame(rule, trace, limit)
    if found is None:
        return []
    own = [trace.value(i, "weight_log") for i in found.culprits]
    factor = math.exp(sum(own) / len(own)) if own else math.nan
    targets = _places.label(trace, found.culprits)
    worst = targets[0] if targets else ""
    cause = f"{describe(found)} because the weights are {size}: {effect.format(factor)} a layer"
    if abs(found.weights) < BEARS * abs(found.ratio):  # small against what the activations take
        cause += f", where {math.exp((found.weights - found.ratio) / found.steps):.2f} would pass it on"
    if found.pinched:
        gain = math.exp(own[0])
        cause = f"the weights of {worst} are far {than} than those of the other layers: gain {gain:.2g}"
    return report(
        trace,
        found,
        cause=cause,
        evidence=(Evidence("weights' gain a layer", factor, limit="about 1 / rms slope", site=worst),),
        remedies=(
            Remedy(
                "reinitialise",
                targets,
                "weights of unit backward gain for this activation",
                parameters={"gain": "auto"},
            ),
            Remedy(
                "insert-normalisation",
                targets,
                "a normalisation makes the gain independent of the weights' size",
            ),
            replace(last, targets=targets if last.safety != "advice" else ()),
        ),
        usual=all(_is_usual(trace, i) for i in found.culprits) and not found.pinched and bool(own),
    )


def _is_usual(trace: Trace, site: int) -> bool:
    """Whether the weights of a layer are as large as torch itself draws them: Var W = 1 / (3 n_in)."""
    size = trace.value(site, "weight_rms") * math.sqrt(DRAWN * trace.sites[site].facts.get("fan_in", 0))
    return abs(size - 1.0) < START
