"""Where a signal becomes exactly zero, and what follows passes no gradient there."""

from __future__ import annotations

from unvanish.core.diagnosis import Evidence, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import FLAT

MAKERS = ("activation", "layer", "norm", "recurrent", "attention")  # whose zeros are others' to explain


def find_blank(trace: Trace) -> list[Fault]:
    """What gives nothing but zeros, of numbers that are none, to what passes no gradient at zero."""
    stops = trace.where("node", kills=True)
    if not stops or any(trace.sites[i].facts.get("kills_because") != "dead" for i in stops):
        return []
    crossed = sorted(trace.where("node", cut=True), key=lambda i: trace.sites[i].order)
    sizes = [trace.value(i, "forward_rms") for i in crossed]
    first = next((k for k, size in enumerate(sizes) if size == 0), 0)
    site = trace.sites[crossed[first]] if crossed else None
    if site is None or not first or not any(size > 0 for size in sizes[:first]) or site.family in MAKERS:
        return []
    starved = max(int(trace.sites[i].facts.get("starved", 0)) for i in stops)
    total, name = len(trace.where("parameter", trainable=True)), (site.label,)
    less_mean = {"mean", "sub"} <= {*site.facts.get("row_kinds", ())}
    what, why = (
        ("normalise-over-more", "its numbers less their own mean: take it over more than one of them")
        if less_mean
        else ("replace-operation", "look at what it multiplies by, or takes off")
    )
    return [
        Fault(
            severity="error",
            cause=f"{site.kind}{_places.locate(site)}{_places.cite(site)} gives only zeros, whatever comes "
            f"in: {starved} of {total} parameters before it never learn",
            sites=name,
            evidence=(
                Evidence("size of what it gives", 0.0, limit="> 0", site=site.label),
                Evidence("parameters with exactly no gradient", starved, unit=f"of {total}", limit="0"),
            ),
            remedies=(Remedy(what, name, why, safety="advice"),),
            direction="blocked",
            tier=FLAT,
            size=starved / max(1, total),
        )
    ]
