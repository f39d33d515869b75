"""The first layer, whether its features are uneven, and whether a normalisation takes their scale away.

Limits

    FIRST = 3          operations from the first layer on in which a normalisation is looked for
    UNEVEN = 100       times between two features: standardised ones have up to 3, and lengths and
                       counts in natural units up to 30
    OUTLIER = 1000     times a feature's usual value: a log-normal feature has up to 100
    LARGE = 10         the usual size of the largest feature: smaller ones saturate nothing, and
                       must differ by UNEVEN squared. The size of an outlier is LARGE squared at
                       least
    SMALL = 0.01       the usual size of a feature whose outlier is small: it set the deviation that
                       the feature was divided by
"""

from __future__ import annotations

from unvanish.core.trace import Site, Trace

FIRST = 3
UNEVEN = 100.0
OUTLIER = 1000.0
LARGE = 10
SMALL = 0.01
PER_BATCH = ("batch_norm", "instance_norm")


def find_first_layer(trace: Trace) -> int | None:
    """The layer or norm that runs first."""
    families = ("layer", "recurrent", "norm")
    layers = [i for i in trace.where("node") if trace.sites[i].family in families]
    return min(layers, key=lambda i: trace.sites[i].order, default=None)


def is_normalised(trace: Trace, first: int) -> bool:
    """Whether a normalisation comes before the first activation or second layer."""
    later = [i for i in trace.where("node") if trace.sites[i].order >= trace.sites[first].order]
    for i in sorted(later, key=lambda i: trace.sites[i].order)[:FIRST]:
        family = trace.sites[i].family
        if family == "norm":
            return True
        if family == "activation" or (family == "layer" and i != first):
            return False
    return False


def find_uneven(trace: Trace, limit: float = UNEVEN, outlier: float = OUTLIER) -> tuple[Site, bool] | None:
    """The first layer if the features that it reads are uneven (True), or one value is far off (False)."""
    nodes = [trace.sites[i] for i in trace.where("node")]
    read = next((s for s in nodes if "feature_ratio" in s.facts), None)
    if read is None or any(s.kind in PER_BATCH and s.order < read.order for s in nodes):
        return None
    facts = read.facts
    ratio, large = facts["feature_ratio"], facts["feature_large"]
    if ratio > limit**2 or (ratio > limit and large > LARGE):
        return read, True
    felt = facts["outlier_top"] > LARGE * LARGE or facts["outlier_usual"] < SMALL
    return (read, False) if facts["outlier"] > outlier and felt else None
