"""The input's scale or offset is far from one, and the first layer is saturated, drowned or blown
up by it.

Why it harms

Weights are initialised for inputs of unit size. With raw pixels (mean 128, size 140) or metres the
first layer's

    z = W x + b,   std z = std W * sqrt(n_in) * rms x

leaves the range where the activation has a slope, an offset common to all samples drowns their
differences, and the first layer's gradient is larger than all others' by the same factor.

How it is measured

The root mean square of each float input, `limit` (default 20), or its |mean| over its standard
deviation, `offset` (default 5), unless a normalisation comes before the first activation; and the
harm must show: the first layer's output beyond `limit` as well, its units saturated, or samples
alike in it.

Remedies

Standardise the input with the training set's mean and deviation (exact for the data, retrain for
the model). Put a BatchNorm in front (retrain).

When it is wrong

Inputs that are scaled inside the model, by a constant or an embedding, are judged by what the first
layer makes of them.

References: LeCun et al. 1998, section 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _depth

NEEDS = ("static", "step")
EXPLAINS = (
    "NUM001",
    "ACT001",
    "OUT003",
    "DEP001",
    "INI002",
    "INI001",
    "REC001",
    "REC002",
    "ACT003",
    "ATT001",
    "OUT001",
    "PRC001",
    "GRF004",
)


def check(trace: Trace, *, limit: float = 20.0, offset: float = 5.0) -> Iterable[Finding]:
    """One finding naming the inputs whose scale harms the first layer."""
    places = [i for i in trace.where("input", floating=True) if math.isfinite(trace.value(i, "forward_rms"))]
    if not places:
        raise NotApplicable("no input is a float tensor")
    first = _first_layer(trace)
    wrong = [i for i in places if trace.value(i, "forward_rms") > limit or _offset(trace, i) > offset]
    if not wrong or first is None or _normalised(trace, first):
        return []
    harm = _harm(trace, first, limit)
    if not harm:
        return []
    worst = max(wrong, key=lambda i: trace.value(i, "forward_rms"))
    rms, facts = trace.value(worst, "forward_rms"), trace.sites[worst].facts
    where = trace.sites[first].label
    cause = f"the input has mean {facts.get('mean', math.nan):.3g} and size {rms:.3g}: {harm} in {where}"
    evidence = (
        Evidence("size of the input (rms)", rms, "", f"< {limit:g}", trace.sites[worst].label),
        Evidence(
            "|mean| / standard deviation",
            _offset(trace, worst),
            "",
            f"< {offset:g}",
            trace.sites[worst].label,
        ),
        Evidence(
            "size of the first layer's output (rms)", trace.value(first, "forward_rms"), "", "about 1", where
        ),
    )
    targets = (*_depth.labels(trace, wrong), where)
    parameters = {"mean": facts.get("mean"), "std": facts.get("std")}
    remedies = (
        Remedy(
            "standardise-input",
            targets[:1],
            "subtract the training set's mean, divide by its deviation",
            "retrain",
            parameters,
        ),
        Remedy(
            "insert-normalisation",
            (where,),
            "a BatchNorm in front learns the scale",
            "retrain",
            {"kind": "batch"},
        ),
    )
    severity: Severity = "error" if rms > 5 * limit or "saturated" in harm else "warning"
    return [
        Finding(
            "INP001",
            "unnormalised-input",
            severity,
            cause,
            targets,
            evidence,
            remedies,
            "none",
            8 + math.log(max(1.0, rms)),
        )
    ]


def _offset(trace: Trace, site: int) -> float:
    facts = trace.sites[site].facts
    mean, std = facts.get("mean", 0.0), facts.get("std", 1.0)
    return abs(mean) / std if std > 0 and abs(mean) > 2 else 0.0


def _first_layer(trace: Trace) -> int | None:
    families = ("layer", "recurrent", "norm")
    layers = [i for i in trace.where("node") if trace.sites[i].family in families]
    return min(layers, key=lambda i: trace.sites[i].order, default=None)


def _normalised(trace: Trace, first: int) -> bool:
    """Whether a normalisation comes before the first activation or second layer."""
    order = trace.sites[first].order
    later = [i for i in trace.where("node") if trace.sites[i].order >= order]
    for i in sorted(later, key=lambda i: trace.sites[i].order)[:3]:
        family = trace.sites[i].family
        if family == "norm":
            return True
        if family == "activation" or (family == "layer" and i != first):
            return False
    return False


def _harm(trace: Trace, first: int, limit: float) -> str:
    """What the input's scale does to the first layer, in words, or ""."""
    order = trace.sites[first].order
    near = [i for i in trace.where("node") if order <= trace.sites[i].order <= order + 3]
    saturated = max(
        (trace.value(i, "saturated") for i in near if trace.value(i, "saturated") > 0), default=0.0
    )
    if saturated > 0.3:
        return f"{saturated:.0%} of the units are saturated"
    if trace.value(first, "forward_rms") > limit / 4:
        return f"activations reach {trace.value(first, 'forward_max'):.3g}"
    if trace.value(first, "spread") < 0.05:
        return "the samples differ too little"
    if trace.sites[first].family == "recurrent":
        return "the gates and states are driven to their ends"
    return ""


def sick() -> Case:
    """Raw pixels into a tanh net."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(
            nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)
        )
        batch = torch.randint(0, 256, (32, 64)).float(), torch.randint(0, 10, (32,))
        return Case(net, batch, nn.CrossEntropyLoss(), story="pixels from 0 to 255")


def healthy() -> Case:
    """The same raw pixels, into a BatchNorm."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
        batch = torch.randint(0, 256, (32, 64)).float(), torch.randint(0, 10, (32,))
        return Case(net, batch, nn.CrossEntropyLoss(), story="pixels, normalised by the model")
