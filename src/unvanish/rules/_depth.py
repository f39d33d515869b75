"""What the rules about depth share: the reading, its evidence, and the names of the places."""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish import depth
from unvanish.ledger import DECADE
from unvanish.types import Direction, Evidence, Finding, NotApplicable, Remedy, Severity, Trace

MOST = 12  # places a finding lists


def reading(trace: Trace, limit: float) -> depth.Depth:
    """The reading of the main depth axis; NotApplicable where there is no depth to judge."""
    found = depth.read(trace, limit=limit)
    if found is None:
        raise NotApplicable("the model has fewer than two hidden layers in a row that get a gradient")
    return found


def labels(trace: Trace, sites: Iterable[int]) -> tuple[str, ...]:
    """The names of at most MOST sites."""
    return tuple(dict.fromkeys(trace.sites[i].label for i in sites))[:MOST]


def evidence(found: depth.Depth) -> tuple[Evidence, ...]:
    """The two numbers every depth finding is held against."""
    judged = "first to last layer" if found.pinched else "trend over the layers"
    return (
        Evidence(f"gradient's ln ratio, {judged}", found.ratio, "nats", f"+-{found.limit:.2g}"),
        Evidence(
            f"the same over {found.steps} layers",
            found.ratio / DECADE,
            "decades",
            f"+-{found.limit / DECADE:.2g}",
        ),
    )


def finding(
    trace: Trace,
    code: str,
    name: str,
    found: depth.Depth,
    cause: str,
    more: tuple[Evidence, ...],
    remedies: tuple[Remedy, ...],
) -> list[Finding]:
    """The one finding of a rule whose code the reading names as the cause."""
    severity: Severity = "error" if found.severity == "error" else "warning"
    direction: Direction = found.direction
    return [
        Finding(
            code, name, severity, cause, labels(trace, found.culprits), (*evidence(found), *more), remedies,
            direction, weight=abs(found.ratio),
        )
    ]  # fmt: skip


def said(found: depth.Depth) -> str:
    """The harm in words: "the gradient loses 17.2 decades over 30 layers"."""
    verb = "loses" if found.ratio < 0 else "gains"
    return f"the gradient {verb} {abs(found.ratio) / DECADE:.1f} decades over {found.steps} layers"


def a_layer(total: float, found: depth.Depth) -> float:
    """A factor a layer, from a total in nats."""
    return math.exp(total / found.steps)
