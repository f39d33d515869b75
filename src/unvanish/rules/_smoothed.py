"""Means over neighbours, one after the other and without a way around them, that several rules ask about.

Limits

Of means over neighbours (a product with a given matrix, sums at given places) that every gradient
crosses:

    SMOOTHED = 3    nats of the differences between the nodes that they take together: graph nets
                    without skips that lost up to 2.5 learned to name their nodes, of those that
                    lost more than 3 none did, however their weights were drawn (6 to 16 layers,
                    300 steps of Adam, measured)
    SEVERAL = 4     such means, at least: one or two over nearly all nodes are a summary
"""

from __future__ import annotations

import math

from unvanish.core.trace import Trace

SMOOTHED = 3.0
SEVERAL = 4


def find(trace: Trace) -> list[int]:
    """The means that make the nodes alike, input to loss; none if they do not, or if nodes are summed up."""
    if "smoothed" not in trace.derived:
        trace.derived["smoothed"] = _find(trace)
    found: list[int] = trace.derived["smoothed"]
    return found


def _find(trace: Trace) -> list[int]:
    axis = trace.depth()
    path = axis.sites if axis else ()
    means = [i for i in reversed(path) if "smooths" in trace.sites[i].facts]
    if len(means) < SEVERAL or measure(trace, means) > -SMOOTHED:
        return []
    return means if _count_rows(trace, path[0]) >= _count_rows(trace, means[-1]) else []


def measure(trace: Trace, means: list[int]) -> float:
    """Nats of the differences between nodes that are left."""
    return sum(trace.sites[i].facts.get("smooths", 0.0) for i in means)


def _count_rows(trace: Trace, site: int) -> int:
    return math.prod(trace.sites[site].facts.get("shape", (0,))[:-1])
