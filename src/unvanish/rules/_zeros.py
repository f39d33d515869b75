"""Parameters that start at zero and hold each other there: products of two, series, zeros before a ReLU."""

from __future__ import annotations

import math

from unvanish.core.diagnosis import Evidence, Remedy, Severity
from unvanish.core.facts import StopReason
from unvanish.core.trace import Site, Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import FLAT

NOISE = {"std": 0.01}
FLAT_AT_ZERO = ("relu", "relu6")
SERIES = 2


def find(trace: Trace) -> list[Fault]:
    """One fault naming the parameters that must not all start at zero."""
    return _find_locked(trace) or _find_rectified(trace) or _find_series(trace)


def _find_locked(trace: Trace) -> list[Fault]:
    """Products of two zero parameters, and series of them, none of which gets a gradient."""
    reasons: tuple[StopReason, ...] = ("locked", "series")
    stops = [i for reason in reasons for i in trace.where("node", kills=True, kills_because=reason)]
    if not stops:
        return []
    names = tuple(dict.fromkeys(n for i in stops for n in trace.sites[i].facts["locked"]))
    site = trace.sites[stops[0]]
    series = site.facts["kills_because"] == "series"  # else the last factor of each product stays at zero
    redrawn = tuple(
        dict.fromkeys(n for i in stops for n in trace.sites[i].facts["locked"][: None if series else -1])
    )
    targets, why = redrawn[: _places.MOST], "of two factors that are multiplied only one may start at zero"
    return [
        Fault(
            severity="error",
            cause=_tell_product(site) if site.facts["kills_because"] == "locked" else _tell_series(names),
            sites=_places.label(trace, stops),
            evidence=(
                Evidence("zero parameters that hold each other", len(names), limit="0", site=site.label),
                Evidence(
                    "parameters that starve", int(site.facts.get("starved", 0)), limit="0", site=site.label
                ),
            ),
            remedies=(
                Remedy("reinitialise", targets, why),
                Remedy("add-noise", targets, why, parameters=NOISE),
            ),
            direction="blocked",
            tier=FLAT,
        )
    ]


def _tell_product(site: Site) -> str:
    first, second = site.facts["locked"][:2]
    return (
        f"{first} and {second} are both zero, which makes {site.kind}{_places.locate(site)} flat in either: "
        "they never move"
    )


def _tell_series(names: tuple[str, ...]) -> str:
    be, them, own = ("are all", "them", "their") if len(names) > 1 else ("is", "it", "its")
    return (
        f"{_places.list_first(names)} {be} zero, which keeps every gradient through {them} at exactly zero, "
        f"{own} own too: nothing moves there"
    )


def _find_rectified(trace: Trace) -> list[Fault]:
    """Gains and weights at zero, shifts too, whose zeros a ReLU reads: its slope there is zero."""
    rectified = {
        trace.sites[i].order
        for i in trace.where("node", rectifier=True)
        if trace.sites[i].kind in FLAT_AT_ZERO and trace.value(i, "forward_rms") == 0
    }
    own = _read_zeros(trace)
    held = [i for i in own if trace.sites[i].order + 1 in rectified and _starve(trace, own[i])]
    if not held:
        return []
    names = tuple(dict.fromkeys(trace.sites[j].label for i in held for j in own[i][:1]))
    be, it = ("are all", "them") if len(names) > 1 else ("is", "it")
    return [
        _report(
            trace,
            held,
            names,
            f"{_places.list_first(names)} {be} zero, and a ReLU reads the zeros that come of {it}, where "
            "its slope is zero: nothing there ever moves",
        )
    ]


def _find_series(trace: Trace) -> list[Fault]:
    """Gains at zero of normalisations that every path crosses, all but the last without a gradient."""
    if any(trace.value(i, "backward_log") > -math.inf for i in trace.where("input")):
        return []  # another way leads past them
    own = {
        i: mine
        for i, mine in _read_zeros(trace, first=True).items()
        if trace.sites[i].facts.get("cut") and trace.sites[i].family == "norm"
    }
    names = tuple(dict.fromkeys(trace.sites[j].label for i in own for j in own[i]))
    if len(names) < SERIES:
        return []
    cause = (
        f"{_places.list_first(names)} are all zero and follow each other on every path: no gradient passes, "
        "and each waits for the next one to move"
    )
    return [_report(trace, list(own), names, cause, "warning")]


def _report(
    trace: Trace, nodes: list[int], names: tuple[str, ...], cause: str, severity: Severity = "error"
) -> Fault:
    starved = [i for i in trace.where("parameter", trainable=True) if _starve(trace, [i])]
    targets = names[: _places.MOST]
    why = "a gain starts at 1, a weight at random numbers; at zero only the last one of a branch"
    return Fault(
        severity=severity,
        cause=cause,
        sites=_places.label(trace, nodes),
        evidence=(
            Evidence("zero parameters in series", len(names), limit="< 2"),
            Evidence("parameters that starve", len(starved), limit="0"),
        ),
        remedies=(
            Remedy("reinitialise", targets, why),
            Remedy("add-noise", targets, why, parameters=NOISE),
        ),
        direction="blocked",
        tier=FLAT,
    )


def _read_zeros(trace: Trace, first: bool = False) -> dict[int, list[int]]:
    """Layers and normalisations whose parameters, or the `first` of them, learn and are zero, with these."""
    places = {trace.sites[i].label: i for i in trace.where("parameter", trainable=True)}
    found: dict[int, list[int]] = {}
    for i in trace.where("node"):
        site = trace.sites[i]
        names = site.facts.get("parameters", ())[: 1 if first else None]
        mine = [places.get(name) for name in names] if site.family in ("norm", "layer") else []
        known = [j for j in mine if j is not None and trace.value(j, "weight_rms") == 0]
        if known and len(known) == len(mine):
            found[i] = known
    return found


def _starve(trace: Trace, parameters: list[int]) -> bool:
    return all(trace.value(j, "gradient_log") == -math.inf for j in parameters)
