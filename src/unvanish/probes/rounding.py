"""Which gradients are mere rounding: what is left of a sum that cancels.

Notable: a small gradient may be meant, as behind a scale of 1e-6. What is rounding falls when the same
gradient is computed in float64, and what is small does not. The copy in float64 runs only if the gradients
of some modules are far below all others, or all of them far below what arrives at an operation: a gradient
that vanishes over the depth leaves no such gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch

from unvanish.probes import precision
from unvanish.probes.measures import norms
from unvanish.probes.passes import Specimen

FAR = 12.0  # nats below the largest gradient: 6e-6, a hundred times the rounding of float32
GAP = 6.0  # nats between those modules and the next: healthy ones lie closer (measured)
FALLS = 7.0  # nats, a thousandth: rounding falls by 2^-29, 20 nats
DEEPEST = -300.0  # nats: below, float64 itself nears its end
AGREES = 1.0  # nats between the largest gradients of both


def find_rounding(specimen: Specimen, logs: Mapping[str, float], arriving: float) -> frozenset[str]:
    """The parameters whose gradient is rounding; `logs`: ln of the norms of the gradients, by name.

    `arriving`: of the largest gradient that arrives at an operation. Empty without a module whose gradients
    are all far below the largest, or if no copy runs in float64.
    """
    own = {name: logs[name] for name in specimen.parameters if math.isfinite(logs.get(name, math.nan))}
    top = max(own.values(), default=-math.inf)
    whole = DEEPEST < top < arriving - FAR
    low = set(own) if whole else _find_low(own, top)
    if not low:
        return frozenset()
    if any(p.dtype != torch.float32 for p in specimen.parameters.values() if p.is_floating_point()):
        return frozenset()
    exact = precision.exact(specimen.model, specimen.batch, specimen.loss, torch.float64)
    if exact is None:
        return frozenset()
    dense = {n: g.coalesce().values() if g.is_sparse else g for n, g in exact.items()}
    sizes = dict(zip(dense, norms(list(dense.values())), strict=True))
    found = {n: math.log(size) if size > 0 else -math.inf for n, size in sizes.items()}
    if not whole and not abs(max(found.values(), default=math.inf) - top) < AGREES:
        return frozenset()
    return frozenset(n for n in low if found.get(n, math.inf) < own[n] - FALLS)


def _find_low(logs: Mapping[str, float], top: float) -> set[str]:
    """The parameters of the modules whose largest gradient lies far down, below a gap in all of them."""
    largest: dict[str, float] = {}
    for name, log in logs.items():
        module = name.rpartition(".")[0]
        largest[module] = max(log, largest.get(module, -math.inf))
    order = sorted(largest.values())
    edges = [low for low, high in pairwise(order) if low < top - FAR and high - low > GAP]
    if not edges:
        return set()
    edge = max(edges)
    return {n for n, log in logs.items() if log > DEEPEST and largest[n.rpartition(".")[0]] <= edge}
