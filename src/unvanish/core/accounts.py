"""Where each row of a depth axis has its gain from: weights, slope, normalisation, residual sum, or the rest.

Notable:
- What lies between two cuts is one row, and each row's gain goes to accounts that add up to it.
- Poolings and selections spread or pick a gradient without losing any: they have an account of their own.
- A softmax that picks is one with the products that make its scores and weigh by it, and is such a selection
  as long as it neither loses nor gains more than a pick among so many rows does: n-fold, and some more by
  their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unvanish.core.facts import SiteFacts
from unvanish.core.ledger import difference
from unvanish.core.limits import POLE, SATURATED
from unvanish.core.trace import Axis, Trace

ACCOUNTS = ("weights", "slope", "saturated", "normalisation", "residual", "resampling", "rest")
SMALLER = 0.5  # ln: by which rows that are picked may be smaller than what picks them
RESAMPLING = ("pool", "interpolate", "upsample", "getitem", "index", "scatter", "mean", "sum")
ADDED = {"index_add", "scatter_add", "scatter_reduce", "index_reduce", "scatter"}
SUMS, PRODUCTS = {"add", "sub"}, {"matmul", "mm", "bmm", "einsum", "mul"}


@dataclass(frozen=True)
class Entry:
    """One row of the account: the site above it, its gain, and the share of each account, in nats.

    `bearers`: the sites inside a row of several paths that bear an account; else the site itself does.
    """

    site: int
    gain: float
    shares: dict[str, float] = field(default_factory=dict)
    bearers: dict[str, tuple[int, ...]] = field(default_factory=dict)


def enter_all(trace: Trace, axis: Axis, rows: Sequence[int], log: Sequence[float]) -> list[Entry]:
    """The entries of the rows below some places of the axis; `log`: ln of the gradient at every site."""
    chosen = _find_choices(trace, axis, rows, log)
    return [enter(trace, axis, k, log, k in chosen) for k in rows]


def enter(trace: Trace, axis: Axis, k: int, log: Sequence[float], chosen: bool = False) -> Entry:
    """The entry of the row below place `k` of the axis; `chosen`: it is part of a choice."""
    site, facts = axis.sites[k], trace.sites[axis.sites[k]].facts
    gain = difference(log[site], log[axis.sites[k + 1]])
    if chosen or _is_message(trace, axis, k):
        return Entry(site, gain, {"resampling": gain})
    entry = _enter_operation(trace, site, gain) if facts.get("simple") else None
    if entry is not None:
        return entry
    account = "resampling" if _is_mean_by_hand(trace, axis, k) else _account_of(facts)
    averaged = 0.0
    if weighs := _is_weighted_sum(trace, axis, k):
        averaged = _find_averaged(gain, difference(log[axis.sites[k - 1]], log[site]))
    entry = None
    if account == "rest" and facts.get("row_layers"):
        entry = _enter_parallel_layers(trace, site, gain - averaged)
    entry = entry or Entry(site, gain - averaged, {account: gain - averaged})
    if weighs:
        return _set_apart(entry, gain, averaged)
    return _leave_pole(entry, facts.get("row_pole", 0.0))


def _leave_pole(entry: Entry, pole: float) -> Entry:
    """The entry of a row that divides rows of zeros: what they gain by it is no growth over the depth."""
    if pole <= POLE or entry.gain <= 0:
        return entry
    apart = min(entry.gain, pole)
    account = max(entry.shares, key=lambda name: entry.shares[name])
    shares = {**entry.shares, account: entry.shares[account] - apart, "resampling": apart}
    return Entry(entry.site, entry.gain, shares, entry.bearers)


def has_pole(trace: Trace, site: int) -> bool:
    """Whether the row below a site divides by numbers of which some are far smaller than the others."""
    return trace.sites[site].facts.get("row_pole", 0.0) > POLE


def return_poles(trace: Trace, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries, where activations that are off stop what rows of zeros had gained above them."""
    owed, found = 0.0, []
    for entry in entries:
        if has_pole(trace, entry.site):
            owed += max(0.0, entry.shares.get("resampling", 0.0))
        elif owed > 0 and (lost := -entry.shares.get("rest", 0.0)) > 0 and "weights" not in entry.shares:
            back = min(owed, lost)
            owed -= back
            shares = {**entry.shares, "rest": back - lost, "resampling": -back}
            entry = Entry(entry.site, entry.gain, shares, entry.bearers)
        found.append(entry)
    return tuple(found)


def _find_choices(trace: Trace, axis: Axis, rows: Sequence[int], log: Sequence[float]) -> set[int]:
    """The rows of softmaxes that pick and of their products; none if together they are no mere selection."""
    kinds = [trace.sites[i].kind for i in axis.sites[:-1]]
    picks = [k for k, kind in enumerate(kinds) if kind == "softmax" and _picks(trace, axis, k)]
    near = {k for place in picks for k in range(max(0, place - 2), place + 3)}
    found = {k for k in near.intersection(rows) if k in picks or kinds[k] in PRODUCTS | {"div"}}
    total = sum(difference(log[axis.sites[k]], log[axis.sites[k + 1]]) for k in found)
    shapes = [trace.sites[axis.sites[k]].facts.get("shape", ()) for k in picks]
    widest = max((n for shape in shapes for n in shape[1:]), default=1)
    return found if abs(total) <= math.log(widest) + SMALLER else set()


def _picks(trace: Trace, axis: Axis, k: int) -> bool:
    """Whether a softmax weighs rows of a table, or what experts say: it picks, as a selection does."""
    above = (place for place in (k - 1, k - 2) if place >= 0)
    kinds = next((found for place in above if not (found := _list_kinds(trace, axis, place)) <= SUMS), set())
    return bool(kinds & PRODUCTS)


def _is_weighted_sum(trace: Trace, axis: Axis, k: int) -> bool:
    """Whether the row above sums what this one multiplies: an average, or colours along a ray."""
    if k == 0:
        return False
    above, own = (_list_kinds(trace, axis, place) for place in (k - 1, k))
    return above == {"sum"} and own >= {"mul"}


def _is_message(trace: Trace, axis: Axis, k: int) -> bool:
    """Whether a row weighs messages that the row above adds up at their nodes: a mean over neighbours."""
    above, own = (_list_kinds(trace, axis, place) for place in (max(0, k - 1), k))
    return k > 0 and bool(above) and above <= ADDED and own <= {"mul", "div"}


def _find_averaged(gain: float, spread: float) -> float:
    """What a row loses by weights that average: a sum over n gives the norm sqrt(n), weights of 1 / n take n.

    `spread`: what the sum above gave, in nats.
    """
    return -min(max(0.0, 2 * spread), max(0.0, -gain))


def _set_apart(entry: Entry, gain: float, averaged: float) -> Entry:
    """The entry of a row that weighs: the average apart, and what is lost beyond its layers and slopes."""
    lost = min(0.0, entry.shares.get("rest", 0.0))
    shares = {**entry.shares, "resampling": entry.shares.get("resampling", 0.0) + averaged + lost}
    if lost:
        shares["rest"] = 0.0
    return Entry(entry.site, gain, shares, entry.bearers)


def _is_mean_by_hand(trace: Trace, axis: Axis, k: int) -> bool:
    """Whether a row divides what the row below it has summed up."""
    return _list_kinds(trace, axis, k) == {"div"} and _list_kinds(trace, axis, k + 1) >= {"sum"}


def _list_kinds(trace: Trace, axis: Axis, k: int) -> set[str]:
    """The kinds of operations in the row below a place of the axis."""
    return set(trace.sites[axis.sites[k]].facts.get("row_kinds", ()))


def _enter_operation(trace: Trace, site: int, gain: float) -> Entry | None:
    """A row of one operation with weights or a slope; None for any other."""
    weight = trace.value(site, "weight_log")
    if math.isfinite(weight):
        return Entry(site, gain, {"weights": weight, "rest": gain - weight})
    slope = trace.value(site, "slope_sq")
    if slope > 0:
        part = 0.5 * math.log(slope)
        account = "saturated" if trace.value(site, "saturated") > SATURATED else "slope"
        return Entry(site, gain, {account: part, "rest": gain - part})
    return None


def _enter_parallel_layers(trace: Trace, site: int, gain: float) -> Entry | None:
    """A row of parallel layers, as in v(x) * g(x) or sigmoid(v(x)) * sigmoid(g(x)); None if it has none.

    Each path has a layer: the mean of their weights' parts is the weights'. What is lost beyond it belongs to
    squashing activations, if there are any. A row that loses less has a path around its layers.
    """
    facts = trace.sites[site].facts
    inner = () if facts.get("row_attention") else _inside(trace).get(facts.get("segment"), ())
    layers = tuple(i for i in inner if math.isfinite(trace.value(i, "weight_log")))
    if not layers:
        return None
    part = float(np.mean([trace.value(i, "weight_log") for i in layers]))
    units = tuple(i for i in inner if trace.sites[i].facts.get("squashing"))
    if not units:
        same = (part < 0 and gain < part) or (part > 0 and gain > part)
        shares = {"weights": part, "rest": gain - part}
        return Entry(site, gain, shares, {"weights": layers}) if same else None
    if gain >= min(part, 0.0):
        return None
    flat = float(np.median([trace.value(i, "saturated") for i in units])) > SATURATED
    account = "saturated" if flat else "slope"
    lost = max(gain - part, _sum_slopes(trace, units))
    shares = {"weights": part, account: lost}
    if lost > gain - part:
        shares["rest"] = gain - part - lost
    return Entry(site, gain, shares, {"weights": layers, account: units})


def _sum_slopes(trace: Trace, units: Sequence[int]) -> float:
    """All that activations can lose, one after the other; no bound if a slope is unknown or zero."""
    slopes = [trace.value(i, "slope_sq") for i in units]
    return sum(0.5 * math.log(s) for s in slopes) if all(s > 0 for s in slopes) else -math.inf


def _inside(trace: Trace) -> dict[int | None, list[int]]:
    """The sites between the cuts of the main axis, by the cut above them."""
    key = "inside"
    if key not in trace.derived:
        found: dict[int | None, list[int]] = {}
        for i in trace.where("node", cut=False):
            found.setdefault(trace.sites[i].facts.get("segment"), []).append(i)
        trace.derived[key] = found
    inside: dict[int | None, list[int]] = trace.derived[key]
    return inside


def _account_of(facts: SiteFacts) -> str:
    """The account of a row whose gain is not split."""
    if facts.get("row_residual"):
        return "residual"
    if facts.get("row_norm"):
        return "normalisation"
    if facts.get("row_layers") or facts.get("row_attention") or facts.get("row_recurrent"):
        return "rest"
    kinds = facts.get("row_kinds", ())
    if any(word in kind for word in RESAMPLING for kind in kinds):
        return "resampling"
    return "rest" if "cat" in kinds else "slope"
