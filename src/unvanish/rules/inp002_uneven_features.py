"""The features that the first layer reads differ in scale by orders of magnitude: the small ones
are drowned.

Why it harms

Weights start alike for all features, so a feature counts by its size:

    z = sum_j w_j x_j,  the gradient of w_j is proportional to x_j

Beside an income of 50,000 an age of 40 or a ratio of 0.3 has no part in the output, and its weight
no part in the step. One outlier of a million does the same to all other samples. A single mean and
deviation for the whole table leave the features as uneven as they were.

An example

    x = torch.tensor(table[["income", "age", "ratio"]].values)    # 50,000, 40 and 0.3
    x = (x - x.mean(0)) / x.std(0)                                # as it should be: for each column

How it is measured

What the first layer reads: the median size of each feature (a column of a table, a channel of an
image) where it is not zero, times the size of its weights. The largest over the least is above
`limit` and the largest is above LARGE, or it is above `limit` squared; constants are left out. Or a
feature's largest value is above `outlier` times its usual one, and above LARGE times LARGE, or the
usual one is below SMALL. No batch normalisation before it or right behind it makes up for that. A
layer normalisation in front reads the features in the first layer's place: it divides all of a
sample by the largest.

Limits

    limit = 100        UNEVEN, below: times between two features
    outlier = 1000     OUTLIER, below: times a feature's usual value

Remedies

Standardise each feature by itself with the training set's centre and scale: median and quartiles
where outliers would set the deviation, and values bounded after it (retrain). Take the logarithm of
features that span decades (advice).

When it is wrong

Features whose small part is noise, as the last principal components, may rightly be drowned.

References: LeCun et al. 1998, section 4.3; Bishop 1995, section 8.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Site, Trace
from unvanish.rules import _input, _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import DATA

NEEDS = ("static", "step")
EXPLAINS = (
    "INP001", "ACT001", "OUT003", "DEP001", "INI002", "INI001", "REC001", "REC002", "ACT003",
    "ATT001", "OUT001", "PRC001", "GRF004",
)  # fmt: skip


def check(trace: Trace, *, limit: float = _input.UNEVEN, outlier: float = _input.OUTLIER) -> Iterable[Fault]:
    """One fault if the features that the first layer reads are uneven, or one value is far off."""
    inputs = trace.where("input", floating=True)
    if not inputs or _input.find_first_layer(trace) is None:
        raise NotApplicable("no layer reads a float input")
    found = _input.find_uneven(trace, limit, outlier)
    return [] if found is None else [_report(trace, found[0], inputs, found[1], limit, outlier)]


def _report(trace: Trace, read: Site, inputs: list[int], uneven: bool, limit: float, outlier: float) -> Fault:
    facts, where = read.facts, read.label
    if uneven:
        low, high, value = facts["feature_small"], facts["feature_large"], facts["feature_ratio"]
        text = (
            f"the features that {where} reads go from {low:.2g} to {high:.2g} in size: the small are drowned"
        )
        number = Evidence("largest feature over the least", value, limit=f"< {limit:g}", site=where)
    else:
        top, value = facts["outlier_top"], facts["outlier"]
        text = f"one value of {top:.2g} enters {where}, {value:.0f} times the usual one of its feature"
        if top < _input.LARGE**2:
            text += ", which it has set the scale of"
        number = Evidence("largest value over the usual", value, limit=f"< {outlier:g}", site=where)
    return Fault(
        severity="warning",
        cause=text,
        sites=(*_places.label(trace, inputs), where),
        evidence=(number,),
        remedies=(
            Remedy(
                "standardise-input",
                _places.label(trace, inputs)[:1],
                "each feature by itself: subtract its centre, divide by its scale, both of the training set",
            ),
        ),
        direction="none",
        tier=DATA,
        size=math.log(max(facts["feature_ratio"], facts["outlier"])),
    )


def sick() -> Case:
    """A table of five columns, one of them in ten thousands and one in hundredths."""
    return _case(even=False)


def healthy() -> Case:
    """The same table, each column standardised."""
    return _case(even=True)


def _case(even: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3))
        x = torch.randn(64, 5)
        y = (x @ torch.randn(5, 3)).argmax(1)
        x = (
            x
            if even
            else x * torch.tensor([1.0, 20000.0, 1.0, 0.02, 40.0]) + torch.tensor([0, 5e4, 0, 0, 50])
        )
        return Case(net, (x, y), nn.CrossEntropyLoss(), story="a table in natural units")
