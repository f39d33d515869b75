"""Units of a rectifier that never fire, for any sample: they get no gradient and stay dead.

Why it harms

A ReLU's slope is exactly zero for a negative input. A unit whose input is negative for all data,

    z = w x + b < 0 for every x   =>   dL/dw = dL/db = 0

can never come back. Large negative biases do it at the start, steps that are too long do it during
training.

An example

    layer = nn.Linear(64, 64)
    layer.bias.data -= 8                     # one step that was too long
    h = torch.relu(layer(x))                 # 0 for every sample, and so is the gradient

How it is measured

The share of units (channels of an image) whose slope is zero for every sample and position of the
batch, for each rectifier. Units also look dead if all samples look alike, as in deep nets whose
samples become correlated. So a share above `limit` counts only if the samples differ before the
rectifier: their mean cosine is below `diverse`, or nearly all units are dead. Nor does it count if
about half of the units are off and the others always on, as behind a layer that reads a softmax or
a mean. A rectifier whose whole input is zero is not to blame, one that a loss reads in place of
logits is OUT001's, and one that blocks all layers before it is an error. In a watched run a unit is
dead if it was silent on 96 samples of three looks in a row, and a share that grows towards `limit`
is a fault with the steps that are left.

Limits

    limit = 0.5        of the units: 95 % of the healthy nets have at most 0.3 (measured), and a
                       He net 0.28 in its twentieth layer
    diverse = 0.95     mean cosine between samples: in that layer it is 0.98, and the units only
                       look dead
    NEARLY_ALL = 0.9   of the units are dead: no likeness short of equality does that, and it is
                       an error
    EQUAL = 0.999      mean cosine: such samples count as equal, and silence all units or none;
                       behind a norm only if they were so before it: its offset makes all alike
    ALWAYS = 0.75      of the samples is how often the living units fire if the samples look alike
                       to this layer: then as many units are always on as are off. Where units died,
                       the others fire for half of the samples
    EVEN = 0.5         of the units are then off by chance
    DEVIATIONS = 3     of a fair coin a unit, above a half: more dead units are no chance
    TOKENS = 3         axes of an activation whose units come last
    GREW = 0.2         more dead units than at the first looks of a watched training: what was so
                       from the start is for its first examination, and does not kill
    LOOKS = 3          first looks, of which the median is taken
    LEAST = 8          samples, times positions: a unit that is silent on fewer need not be dead.
                       Half of the units are off for one sample, 0.4 % for eight independent ones

Remedies

Set the biases of the layer before to zero (retrain). Re-initialise the layer before (retrain). Swap
for Leaky ReLU or GELU, which have a slope everywhere (retrain). Use a smaller learning rate or
warm-up (advice).

When it is wrong

A sparse code is meant to be mostly silent for one sample, but rarely for all. In a small batch a
rare feature may look dead. A watched run that has converged, or whose loss is at its lowest, is not
judged unless nearly all units of a layer are dead.

References: Maas et al. 2013; Lu et al. 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _converged, _learning, _places, _trend
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import DEAD_LAYER, PART

NEEDS = ("static", "step")
LIVE = True
EXPLAINS = ("INI001", "GRF004", "DEP001", "ACT002")
NEARLY_ALL = 0.9
EQUAL = 0.999
ALWAYS, EVEN, DEVIATIONS = 0.75, 0.5, 3
TOKENS = 3  # axes of an activation whose units come last
LEAST = 8
GREW, LOOKS = 0.2, 3


def check(trace: Trace, *, limit: float = 0.5, diverse: float = 0.95) -> Iterable[Fault]:
    """One fault naming the rectifiers most of whose units never fire."""
    places = _observed_rectifiers(trace)
    dead = [i for i in places if _is_dead(trace, i, limit, diverse)]
    if trace.facts.get("live"):
        dead = [i for i in dead if _harms(trace, i)]
    if _converged.has_converged(trace):
        return []
    if not dead:
        return _foresee(trace, places, limit, diverse) if trace.facts.get("live") else []
    dead.sort(key=lambda i: -trace.value(i, "dead"))
    share, where = trace.value(dead[0], "dead"), trace.sites[dead[0]].label
    blocked = any(trace.sites[i].facts.get("kills") for i in dead)
    targets = _places.label(trace, dead)
    cause = f"{share:.0%} of the units of {where} never fire on this batch, although its samples differ"
    if share == 1:
        cause = f"no unit of {where} ever fires: nothing passes it, forward or backward"
    return [
        Fault(
            severity="error" if share > NEARLY_ALL or blocked else "warning",
            cause=cause,
            sites=targets,
            evidence=(
                Evidence("dead units", share, limit=f"< {limit:g}", site=where),
                Evidence(
                    "cosine between samples before it",
                    _cosine_before(trace, dead[0]),
                    limit=f"< {diverse:g}",
                    site=where,
                ),
                Evidence("activations affected", len(dead), unit=f"of {len(places)}"),
            ),
            remedies=(
                Remedy("zero-bias", targets, "biases far below zero keep the units off"),
                Remedy("reinitialise", targets, "weights that are negative on average keep the units off"),
                Remedy(
                    "swap-activation",
                    targets,
                    "a slope everywhere lets units come back",
                    parameters={"to": "leaky_relu"},
                ),
                Remedy(
                    "lower-learning-rate", (), "long steps push units over the edge for good", safety="advice"
                ),
            ),
            direction="blocked" if blocked else "vanishing",
            tier=DEAD_LAYER if blocked else PART,
            size=share,
        )
    ]


def _foresee(trace: Trace, places: list[int], limit: float, diverse: float) -> list[Fault]:
    """A share of dead units that will pass the limit if it goes on as it does."""
    found = {i: _trend.follow(trace, i, "dead", limit) for i in places if _cosine_before(trace, i) < diverse}
    first = _trend.find_first(found)
    if first is None:
        return []
    crossing, where = first.crossing, trace.sites[first.site].label
    return [
        Fault(
            severity="warning",
            cause=f"units of {where} die one after the other, {crossing.now:.0%} so far: half are dead "
            f"{crossing.describe()}",
            sites=_places.label(trace, first.sites),
            evidence=(
                Evidence("dead units", crossing.now, limit=f"< {limit:g}", site=where),
                Evidence("steps until it is at the limit", crossing.steps, site=where),
            ),
            remedies=(
                Remedy("zero-bias", (where,), "biases far below zero keep the units off"),
                Remedy("lower-learning-rate", (), "long steps push units over the edge", safety="advice"),
            ),
            direction="vanishing",
            tier=PART,
            size=crossing.now,
        )
    ]


def _observed_rectifiers(trace: Trace) -> list[int]:
    """The rectifiers that saw enough samples and positions; NotApplicable if there is none.

    One that a loss reads in place of logits is wrong there, dead or not (OUT001).
    """
    outputs = (trace.sites[i].facts for i in trace.where("output"))
    read = {f.get("site") for f in outputs if f.get("floor")}
    places = [
        i
        for i in trace.where("node", rectifier=True)
        if math.isfinite(trace.value(i, "dead")) and trace.sites[i].label not in read
    ]
    if not places:
        raise NotApplicable("the model has no rectifier (ReLU and its like)")
    places = [i for i in places if _places.count_observations(trace.sites[i]) >= LEAST]
    if not places:
        raise NotApplicable(
            f"fewer than {LEAST} samples and positions: a unit that is silent on them need not be dead"
        )
    return places


def _is_dead(trace: Trace, site: int, limit: float, diverse: float) -> bool:
    """Whether the rectifier's units are dead, and not only its samples alike or its input zero."""
    share = trace.value(site, "dead")
    if share <= limit or (share == 1 and _gets_zeros(trace, site)) or _is_even(trace, site):
        return False
    cosine = _cosine_before(trace, site)
    return cosine < diverse or (share > NEARLY_ALL and not _is_equal(trace, site))


def _is_even(trace: Trace, site: int) -> bool:
    """Whether about half of the units never fire because the others always do: what they read hardly differs.

    So it is before a layer that reads a softmax or a mean: the sign of its constant part decides, either way.
    """
    share, shape = trace.value(site, "dead"), trace.sites[site].facts.get("shape", ())
    if len(shape) < 2 or share == 1:  # no unit is always on
        return False
    units = max(1, shape[-1] if len(shape) == TOKENS else shape[1])
    chance = DEVIATIONS * EVEN / math.sqrt(units)
    return trace.value(site, "slope_sq") >= ALWAYS * (1 - share) and share <= EVEN + chance


def _harms(trace: Trace, site: int) -> bool:
    """Whether a watched training suffers: nearly all units died, or many did while the loss did not fall."""
    share = trace.value(site, "dead")
    if share > NEARLY_ALL or trace.sites[site].facts.get("kills"):
        return True
    seen = trace.values[:, site, trace.statistics.index("dead")]
    first = seen[np.isfinite(seen)][:LOOKS]
    steps = trace.facts.get("steps") or [LOOKS + 1]
    from_the_start = steps[0] <= LOOKS and share < float(np.median(first)) + GREW
    return not from_the_start and not _learning.thrives(trace)


def _gets_zeros(trace: Trace, site: int) -> bool:
    """Whether the operation just before gives exact zeros, as weights of zero do."""
    last = _latest(trace, _nodes_before(trace, site))
    return last is not None and trace.value(last, "forward_rms") == 0


def _is_equal(trace: Trace, site: int) -> bool:
    """Whether the samples are equal before the rectifier, and before a norm that moves them all."""
    last = _latest(trace, _stages_before(trace, site))
    if last is not None and trace.sites[last].family == "norm" and _cosine_before(trace, last) <= EQUAL:
        return False
    return _cosine_before(trace, site) > EQUAL


def _cosine_before(trace: Trace, site: int) -> float:
    """How alike the samples are at the last activation, norm or sum before the site, or at the input."""
    last = _latest(trace, _stages_before(trace, site))
    if last is not None:
        return trace.value(last, "cosine")
    inputs = (trace.value(i, "cosine") for i in trace.where("input"))
    return min((v for v in inputs if math.isfinite(v)), default=0.0)


def _stages_before(trace: Trace, site: int) -> list[int]:
    """The activations, norms and sums that ran before a site and say how alike their samples are."""
    return [
        i
        for i in _nodes_before(trace, site)
        if trace.sites[i].family in ("activation", "norm", "add") and math.isfinite(trace.value(i, "cosine"))
    ]


def _nodes_before(trace: Trace, site: int) -> list[int]:
    """The nodes that ran before a site."""
    order = trace.sites[site].order
    return [i for i in trace.where("node") if -1 < trace.sites[i].order < order]


def _latest(trace: Trace, nodes: list[int]) -> int | None:
    """The node that ran last."""
    return max(nodes, key=lambda i: trace.sites[i].order, default=None)


def sick() -> Case:
    """Biases pushed down by an overlong step in one layer."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[Any] = []
        for _ in range(4):
            layers += [nn.Linear(64, 64), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight)
        layers[2].bias.data[:50] -= 8
        batch = torch.randn(64, 64), torch.randint(0, 10, (64,))
        return Case(
            nn.Sequential(*layers, nn.Linear(64, 10)),
            batch,
            nn.CrossEntropyLoss(),
            story="50 of 64 units pushed down",
        )


def healthy() -> Case:
    """A deep He-initialised net, whose samples have become alike, so that units look dead."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[Any] = []
        for _ in range(20):
            layers += [nn.Linear(128, 128), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight)
        batch = torch.randn(16, 128), torch.randint(0, 10, (16,))
        return Case(
            nn.Sequential(*layers, nn.Linear(128, 10)), batch, nn.CrossEntropyLoss(), story="20 He layers"
        )
