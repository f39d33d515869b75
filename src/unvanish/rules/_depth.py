"""What the rules about depth share: the reading, its evidence, and the names of the places."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from unvanish.core import depth
from unvanish.core.diagnosis import Direction, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.ledger import DECADE
from unvanish.core.trace import Site, Trace

MOST = 12  # places a finding lists


def reading(trace: Trace, limit: float) -> depth.Depth:
    """The reading of the main depth axis; NotApplicable where there is no depth to judge."""
    key = ("depth", limit)
    if key not in trace.derived:
        trace.derived[key] = depth.read(trace, limit=limit)
    found: depth.Depth | None = trace.derived[key]
    if found is None:
        raise NotApplicable("the model has fewer than two hidden layers in a row that get a gradient")
    return found


def labels(trace: Trace, sites: Iterable[int]) -> tuple[str, ...]:
    """The names of at most MOST sites."""
    return tuple(dict.fromkeys(trace.sites[i].label for i in sites))[:MOST]


def within(site: Site) -> str:
    """The words "in its module", or nothing if a site's name is its operation's."""
    return "" if site.path == site.kind else f" in {site.label}"


def evidence(found: depth.Depth) -> tuple[Evidence, ...]:
    """The two numbers every depth finding is held against."""
    judged = "first to last layer" if found.pinched else "trend over the layers"
    return (
        Evidence(f"gradient's ln ratio, {judged}", found.ratio, "nats", f"+-{found.limit:.2g}"),
        Evidence(
            f"the same over {_layers(found)}",
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
    *,
    most: Severity = "error",
) -> list[Finding]:
    """The one finding of a rule whose code the reading names as the cause; `most`: as bad as it is called."""
    severity: Severity = most if found.severity == "error" else "warning"
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
    return f"the gradient {verb} {abs(found.ratio) / DECADE:.1f} decades over {_layers(found)}"


def _layers(found: depth.Depth) -> str:
    return f"{found.steps} layer{'' if found.steps == 1 else 's'}"


def a_layer(total: float, found: depth.Depth) -> float:
    """A factor a layer, from a total in nats."""
    return math.exp(total / found.steps)


def weights(
    trace: Trace, code: str, name: str, limit: float, words: tuple[str, str, str], last: Remedy
) -> list[Finding]:
    """The finding of the rules about the weights' size; `words`: smaller, too small, what a layer does."""
    found = reading(trace, limit)
    if found.cause != code:
        return []
    own = [trace.value(i, "weight_log") for i in found.culprits]
    factor = math.exp(sum(own) / len(own)) if own else math.nan
    targets = labels(trace, found.culprits)
    worst = targets[0] if targets else ""
    cause = f"{said(found)} because the weights are {words[1]}: {words[2].format(factor)} a layer"
    if abs(found.weights) < 0.5 * abs(found.ratio):  # small beside what the activations take
        cause += f", where {math.exp((found.weights - found.ratio) / found.steps):.2f} would pass it on"
    if found.pinched:
        gain = math.exp(own[0])
        cause = f"the weights of {worst} are far {words[0]} than those of the other layers: gain {gain:.2g}"
    more = (Evidence("weights' gain a layer", factor, "", "about 1 / rms slope", worst),)
    unit, scale = (
        "weights of unit backward gain for this activation",
        "makes the gain independent of the weights' size",
    )
    remedies = (
        Remedy("reinitialise", targets, unit, "retrain", {"gain": "auto"}),
        Remedy("insert-normalisation", targets, f"a normalisation {scale}"),
        replace(last, targets=targets if last.safety != "advice" else ()),
    )
    return finding(trace, code, name, found, cause, more, remedies)
