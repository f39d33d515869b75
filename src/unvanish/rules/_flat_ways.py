"""Ways that pass zeros beside others that do not: what has no slope, and what a number switches off."""

from __future__ import annotations

from unvanish.core.diagnosis import Evidence, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import FLAT, REMARK

BETTER = {
    "normal": "mean + deviation * torch.randn_like(mean), or Normal(...).rsample()",
    "div": "no division by their own sum where one is chosen: it gives 1, whatever the score",
    "softmax": "another axis, or none: over an axis of one it gives 1, whatever the score",
    "grid_sampler": "mode='bilinear': the nearest place does not move with the grid",
}


def find_regularised(trace: Trace) -> list[Fault]:
    """An operation without a slope that keeps one term of the loss from what another one teaches."""
    flat = trace.facts.get("flat_paths", [])
    if not flat:
        return []
    first, total = flat[0], len(trace.where("parameter", trainable=True))
    where, line = first["path"] or "(model)", f" ({first['line']})" if first["line"] else ""
    why = BETTER.get(first["kind"], "an operation with a slope, or a straight-through estimator")
    count = len(first["parameters"])
    return [
        Fault(
            severity="error",
            cause=f"{first['kind']} in {where}{line} passes exactly no gradient: through it one term of the "
            f"loss teaches nothing to {_places.list_first(first['parameters'])}, which another term moves",
            sites=tuple(dict.fromkeys((where, *first["parameters"])))[: _places.MOST],
            evidence=(Evidence("parameters that the term does not teach", count, f"of {total}", limit="0"),),
            remedies=(Remedy("replace-operation", (where,), why, safety="advice"),),
            direction="blocked",
            tier=FLAT,
            size=count / max(1, total),
        )
    ]


def find_switched_off(trace: Trace) -> list[Fault]:
    """A note of what somebody multiplied by the number 0."""
    stops = trace.where("node", kills=True, kills_because="number")
    stops.sort(key=lambda i: -int(trace.sites[i].facts.get("starved", 0)))
    if not stops:
        return []
    site, starved = trace.sites[stops[0]], int(trace.sites[stops[0]].facts.get("starved", 0))
    line = f" ({site.facts['line']})" if site.facts.get("line") else ""
    return [
        Fault(
            severity="note",
            cause=f"{site.kind}{_places.locate(site)}{line} multiplies by the number 0: {starved} "
            "parameters before it get zeros, and may be switched off on purpose",
            sites=_places.label(trace, stops),
            evidence=(Evidence("parameters with exactly no gradient", starved, site=site.label),),
            remedies=(),
            direction="none",
            tier=REMARK,
        )
    ]
