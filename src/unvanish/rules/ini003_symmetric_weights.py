"""Units of a layer have equal weights and equal gradients, so they stay equal for ever.

Why it harms

Two units with the same incoming weights compute the same thing; if they are read in the same way
they get the same gradient,

    w_i = w_j and dL/dw_i = dL/dw_j   =>   w_i = w_j after every step

so a layer of n such units has the capacity of one.

An example

    nn.init.constant_(first.weight, 0.05)    # every unit computes the same,
    nn.init.constant_(second.weight, 0.05)   # and is read in the same way

How it is measured

The share of a weight's rows (with their biases) that equal another row exactly, and whether their
gradients are equal too, to 1e-4: a share above `limit` is an error. Equal rows whose gradients
differ will part by themselves and are no fault: zero-initialised layers, upsampling kernels. They
are one if every row is equal and a layer below gets rounding alone: the gradients of the classes
add up to zero, and equal rows pass on nothing but their sum. Where one packed weight
(3 width, width) holds the same numbers for queries, keys and values, each token begins by
attending to itself and to its likes: a warning. So are weights of several layers that hold the
same numbers and get the same gradient: copies that are read alike, as experts or an ensemble.

Limits

    limit = 0.2     of the rows: random rows are never equal, and a few twins cost little capacity

Remedies

Re-initialise with random numbers (retrain). Add a little noise to the weights (retrain).

When it is wrong

Layers whose units are tied on purpose, for example to share weights between positions, should share
one parameter instead.

References: Goodfellow et al. 2016, section 8.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import START

NEEDS = ("static", "step")
EXPLAINS = ("INI001", "INI002", "DEP001", "ACT003", "GRF007")


def check(trace: Trace, *, limit: float = 0.2) -> Iterable[Fault]:
    """One fault naming the weights whose rows are equal and stay so."""
    shares = {i: trace.value(i, "weight_twins") for i in trace.where("parameter", trainable=True)}
    shares = {i: share for i, share in shares.items() if math.isfinite(share)}
    if not shares:
        raise NotApplicable("the model has no trainable weight matrix")
    twins = [i for i, share in shares.items() if share > limit and trace.sites[i].facts.get("twins_stay")]
    harm = "in their weights and in their gradients"
    if not twins and _cancels(trace):
        twins = [i for i in shares if trace.sites[i].facts.get("uniform")]
        shares |= dict.fromkeys(twins, 1.0)
        harm = "in their weights, and what comes back through them cancels"
    if not twins:
        return _find_packed(trace) or _find_copies(trace)
    twins.sort(key=lambda i: -shares[i])
    share, targets = shares[twins[0]], _places.label(trace, twins)
    return [
        Fault(
            severity="error",
            cause=f"{share:.0%} of the units of {targets[0]} equal another unit {harm}",
            sites=targets,
            evidence=(
                Evidence("units with a twin", share, limit=f"< {limit:g}", site=targets[0]),
                Evidence("weights affected", len(twins)),
            ),
            remedies=(
                Remedy("reinitialise", targets, "random weights tell the units apart"),
                Remedy("add-noise", targets, "a little noise breaks the symmetry", parameters={"std": 0.01}),
            ),
            direction="none",
            tier=START,
            size=share,
        )
    ]


def _cancels(trace: Trace) -> bool:
    """Whether some weights get rounding alone, or nothing because sums of weights cancel on the way."""
    return bool(trace.where("parameter", trainable=True, rounding=True)) or _places.is_stopped_by_sums(trace)


def _find_packed(trace: Trace) -> list[Fault]:
    """Packed projections whose queries, keys and values are copies of each other."""
    packed = trace.where("parameter", trainable=True, twin_thirds=True)
    if not packed:
        return []
    targets = _places.label(trace, packed)
    return [
        Fault(
            severity="warning",
            cause=f"queries, keys and values in {targets[0]} begin as copies of each other: each token "
            "attends to itself and to its likes",
            sites=targets,
            evidence=(Evidence("packed projections of equal thirds", len(packed), limit="0"),),
            remedies=(Remedy("reinitialise", targets, "draw the three parts one by one"),),
            direction="none",
            tier=START,
            size=1.0,
        )
    ]


def _find_copies(trace: Trace) -> list[Fault]:
    """Weights that are copies of each other, and are pulled alike: experts or members of an ensemble."""
    known: dict[str, list[int]] = {}
    for i in trace.where("parameter", trainable=True, reachable=True, rounding=False):
        first = trace.sites[i].facts.get("copied")
        if first and math.isfinite(trace.value(i, "gradient_log")):
            known.setdefault(first, []).append(i)
    copies = [group for group in known.values() if len(group) > 1]
    if not copies:
        return []
    targets, number = _places.label(trace, [i for group in copies for i in group]), len(copies[0])
    names = _places.list_first([trace.sites[i].label for i in copies[0]])
    return [
        Fault(
            severity="warning",
            cause=f"{names} are copies of each other and get the same gradient: {number} parts that do the "
            "work of one for ever",
            sites=targets,
            evidence=(Evidence("weights that are one and the same", number, limit="1", site=targets[0]),),
            remedies=(
                Remedy("reinitialise", targets, "draw each copy by itself"),
                Remedy("add-noise", targets, "a little noise breaks the symmetry", parameters={"std": 0.01}),
            ),
            direction="none",
            tier=START,
            size=1.0,
        )
    ]


def sick() -> Case:
    """Layers filled with one constant."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4))
        for layer in (net[0], net[2], net[4]):
            nn.init.constant_(layer.weight, 0.05)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(net[4].weight, std=0.2)
        net[4].weight.data = net[4].weight.data[:, :1].repeat(1, 32)
        return Case(
            net,
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="constant weights",
        )


def healthy() -> Case:
    """Zero-initialised last layers of residual branches: equal rows, but unequal gradients."""
    import torch
    from torch import Tensor, nn

    class Fixup(nn.Module):
        """x + W2 relu(W1 x) with W2 = 0."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(32, 32), nn.Linear(32, 32)
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(torch.relu(self.first(x)))
            return x + y

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(*[Fixup() for _ in range(6)], nn.Linear(32, 4))
        return Case(
            net,
            (torch.randn(32, 32), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="zero-init branches",
        )
