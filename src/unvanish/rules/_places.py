"""The places of a finding: which ones, how many numbers and samples, and their names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from unvanish.core.trace import Site, Trace

MOST = 12  # places that a finding lists
WORST = 5  # layers that a finding on steps lists
SHOWN = 2  # of them with their number
LOGIT_LOSSES = ("cross_entropy", "binary_cross_entropy_with_logits")
FIRST = 3  # places that a sentence lists


def label(trace: Trace, sites: Iterable[int]) -> tuple[str, ...]:
    """The names of at most MOST sites, each once."""
    return tuple(dict.fromkeys(trace.sites[i].label for i in sites))[:MOST]


def locate(site: Site) -> str:
    """The words "in its module", or nothing if a site has the name of its operation."""
    return "" if site.path == site.kind else f" in {site.label}"


def count_numbers(trace: Trace, parameters: Iterable[int]) -> int:
    """How many numbers these parameters hold."""
    return sum(int(trace.sites[i].facts.get("numel", 0)) for i in parameters)


def count_observations(site: Site) -> int:
    """How many samples, times positions, a unit of an activation saw; images are (N, C, H, W)."""
    shape = site.facts.get("shape", ())
    channel = 1 if len(shape) >= 4 else len(shape) - 1
    return math.prod(n for dimension, n in enumerate(shape) if dimension != channel)


def cite(site: Site) -> str:
    """The line of a site in brackets, with a blank before it; "" if it is not known."""
    line = site.facts.get("line", "")
    return f" ({line})" if line else ""


def list_first(names: Sequence[str]) -> str:
    """The first names in a sentence: "a, b, c and 4 more"."""
    more = len(names) - FIRST
    return ", ".join(names[:FIRST]) + (f" and {more} more" if more > 0 else "")


def find_logit_losses(trace: Trace) -> list[int]:
    """The loss functions that read logits and normalise them."""
    return [i for i in trace.where("output") if trace.sites[i].kind in LOGIT_LOSSES]


def is_stopped_by_sums(trace: Trace) -> bool:
    """Whether gradients are stopped, and only by layers whose sums cancel."""
    stops = [trace.sites[i].facts for i in trace.where("node", kills=True)]
    return bool(stops) and all(f.get("family") == "layer" and f.get("kills_because") == "dead" for f in stops)
