"""Units of a rectifier that never fire, for any sample: they get no gradient and stay dead.

Why it harms

Where a ReLU's input is negative its slope is exactly zero. A unit with a negative input for all the
data,

    z = w x + b < 0 for every x   =>   dL/dw = dL/db = 0

can never come back. Large negative biases do it at the start, steps that are too long do it during
training.

How it is measured

The share of units (channels of an image) whose slope is zero for every sample and position of the
batch, for each rectifier, `limit` (default 0.5). Units also look dead where all samples look alike,
in deep nets with correlation collapse; so the share counts only where the mean cosine between
samples is below `diverse` (default 0.95), or where more than 90 % are dead, or all. A batch of
fewer than 8 samples is not judged.

Remedies

Set the biases of the layer before to zero (retrain). Re-initialise the layer before (retrain). Swap
for Leaky ReLU or GELU, which have a slope everywhere (retrain). Use a smaller learning rate or
warm-up (advice).

When it is wrong

A sparse code is meant to be mostly silent for one sample, but rarely for all. With a small batch a
rare feature may look dead. A run under watch that has converged is left alone.

References: Maas et al. 2013; Lu et al. 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Direction, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _depth, _history

NEEDS = ("static", "step")
LIVE = True
EXPLAINS = ("INI001", "GRF004", "DEP001", "ACT002")
LEAST = 8  # samples, times positions


def check(trace: Trace, *, limit: float = 0.5, diverse: float = 0.95) -> Iterable[Finding]:
    """One finding naming the rectifiers most of whose units never fire."""
    places = [i for i in trace.where("node", rectifier=True) if math.isfinite(trace.value(i, "dead"))]
    if not places:
        raise NotApplicable("the model has no rectifier (ReLU and its like)")
    places = [i for i in places if _observations(trace, i) >= LEAST]
    if not places:
        raise NotApplicable(
            f"fewer than {LEAST} samples and positions: a unit that is silent on them need not be dead"
        )
    dead = sorted(
        (i for i in places if _dead(trace, i, limit, diverse)), key=lambda i: -trace.value(i, "dead")
    )
    if not dead or _history.converged(trace):
        return []
    share = trace.value(dead[0], "dead")
    where = trace.sites[dead[0]].label
    evidence = (
        Evidence("dead units", share, "", f"< {limit:g}", where),
        Evidence(
            "cosine between samples before it", _upstream_cosine(trace, dead[0]), "", f"< {diverse:g}", where
        ),
        Evidence("activations affected", len(dead), f"of {len(places)}"),
    )
    targets = _depth.labels(trace, dead)
    blocked = any(trace.sites[i].facts.get("kills") for i in dead)
    cause = f"{share:.0%} of the units of {where} never fire on this batch, although its samples differ"
    if share == 1:
        cause = f"no unit of {where} ever fires: nothing passes it, forward or backward"
    remedies = (
        Remedy("zero-bias", targets, "biases far below zero keep the units off"),
        Remedy("reinitialise", targets, "weights that are negative on average keep the units off"),
        Remedy(
            "swap-activation",
            targets,
            "a slope everywhere lets units come back",
            parameters={"to": "leaky_relu"},
        ),
        Remedy("lower-learning-rate", (), "long steps push units over the edge for good", "advice"),
    )
    severity: Severity = "error" if share > 0.9 or blocked else "warning"
    direction: Direction = "blocked" if blocked else "vanishing"
    return [
        Finding(
            "ACT003",
            "dead-units",
            severity,
            cause,
            targets,
            evidence,
            remedies,
            direction,
            2 + 4 * share + 20 * blocked,
        )
    ]


def _observations(trace: Trace, site: int) -> int:
    shape = trace.sites[site].facts.get("shape", ())
    kept = [n for d, n in enumerate(shape) if d != (1 if len(shape) >= 4 else len(shape) - 1)]
    return math.prod(kept)


def _dead(trace: Trace, site: int, limit: float, diverse: float) -> bool:
    share = trace.value(site, "dead")
    if share <= limit or (share == 1 and _nothing_enters(trace, site)):
        return False
    cosine = _upstream_cosine(trace, site)
    return cosine < diverse or (share > 0.9 and not cosine > 0.999)


def _nothing_enters(trace: Trace, site: int) -> bool:
    """Whether what came just before is exactly zero, as after weights of zero: then it is not the units."""
    order = trace.sites[site].order
    earlier = [i for i in trace.where("node") if -1 < trace.sites[i].order < order]
    last = max(earlier, key=lambda i: trace.sites[i].order, default=None)
    return last is not None and trace.value(last, "forward_rms") == 0


def _upstream_cosine(trace: Trace, site: int) -> float:
    """Likeness of the samples where they were last unlike: at the input, or at the activation before."""
    order = trace.sites[site].order
    earlier = [
        i
        for i in trace.where("node")
        if trace.sites[i].family in ("activation", "norm", "add")
        and trace.sites[i].order < order
        and math.isfinite(trace.value(i, "cosine"))
    ]
    if earlier:
        return trace.value(max(earlier, key=lambda i: trace.sites[i].order), "cosine")
    known = [trace.value(i, "cosine") for i in trace.where("input")]
    return min((v for v in known if math.isfinite(v)), default=0.0)


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
