"""The gradient along the depth: how much of it is left, whether that is chance, and what bears the loss.

Notable:
- d is the gradient at a layer's output. Its Theil-Sen slope over the layers, times their number, is the ratio
  that decides; the output layer stays out of it.
- Poolings and selections spread or pick a gradient without losing any: what they do to its norm is left out.
- Narrow nets wander: std of ln ||d|| over the depth is sqrt(kappa sum 1/n) / 2 with kappa = 5 for ReLU (Hanin
  and Nica 2020), so the limit is max(3, 1.5 sqrt(5 sum 1/n)) nats.
- Whatever lies between two cuts is one row, and each row's gain goes to one account: weights, slope,
  normalisation, residual, or rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.core.diagnosis import Direction
from unvanish.core.facts import SiteFacts
from unvanish.core.ledger import difference
from unvanish.core.trace import Axis, Trace

CONTRACTING = -1.0  # nats: a root mean square slope under 0.37
RELU = 0.5 * math.log(2.0)  # nats that a ReLU costs, which weights are drawn to make up for (He et al. 2015)
PINCHED = 2.0  # nats a layer's weights lie from the median of all
SATURATED = 0.5
SHARE = 0.1  # of a loss, that weights and slopes must bear to be its cause
NORMALISED = 11 / 6  # where layers are normalised it is 5.5 nats: a gradient is relative to its weights
ACCOUNTS = ("weights", "slope", "saturated", "normalisation", "residual", "resampling", "rest")
RESAMPLING = ("pool", "interpolate", "upsample", "getitem", "index", "mean", "sum")


@dataclass(frozen=True)
class Entry:
    """One row of the account: the site above it, its gain, and the share of each account, in nats.

    `bearers`: the sites inside a row of several paths that bear an account; else the site itself does.
    """

    site: int
    gain: float
    shares: dict[str, float] = field(default_factory=dict)
    bearers: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Depth:
    """The reading of one depth axis; all numbers in nats, negative = vanishing on the way to the input.

    `layers`: sites of the layers' outputs, loss to input, the output layer left out; `log_ratio`: Theil-Sen
    slope of ln||d|| times (layers - 1); `endpoint`: ln of the last over the first ||d||; `limit`, `critical`:
    where a warning and an error begin; `noise`: what the width alone allows; one number for each account;
    `cause`: the code of the rule that bears it, or ""; `culprits`: the sites that bear it, worst first.
    """

    axis: Axis
    layers: tuple[int, ...]
    log_d: NDArray[np.float64]
    log_ratio: float
    endpoint: float
    noise: float
    limit: float
    critical: float
    entries: tuple[Entry, ...]
    weights: float = 0.0
    slope: float = 0.0
    saturated: float = 0.0
    normalisation: float = 0.0
    residual: float = 0.0
    resampling: float = 0.0
    rest: float = 0.0
    cause: str = ""
    culprits: tuple[int, ...] = ()
    pinched: bool = False

    @property
    def ratio(self) -> float:
        """The ratio that was judged: the endpoints' where one layer stands out, else the trend's."""
        return self.endpoint if self.pinched else self.log_ratio

    @property
    def severity(self) -> str:
        """How bad: "error", "warning", or "" for no fault."""
        size = abs(self.ratio)
        return "error" if size > self.critical else "warning" if size > self.limit else ""

    @property
    def direction(self) -> Direction:
        """What the finding does to the gradient."""
        return "none" if not self.severity else "vanishing" if self.ratio < 0 else "exploding"

    @property
    def steps(self) -> int:
        """How many layers the gradient crosses."""
        return max(1, len(self.layers) - 1)


def read(trace: Trace, *, limit: float = 3.0) -> Depth | None:
    """The reading of the main depth axis; None where there are fewer than two layers with a gradient."""
    axis = trace.depth()
    if axis is None:
        return None
    places = _layers(trace, axis)
    log = trace.column("backward_log").tolist()
    places = [k for k in places if math.isfinite(log[axis.sites[k]])]
    if len(places) < 2:
        return None
    layers = tuple(axis.sites[k] for k in places)
    entries = tuple([_entry(trace, axis, k, log) for k in range(places[0], places[-1])])
    log_d = np.array([log[i] for i in layers]) - _resampled(axis, places, entries)
    noise = 1.5 * math.sqrt(5 * sum(1 / _width(trace, i) for i in layers))
    totals: dict[str, Any] = dict.fromkeys(ACCOUNTS, 0.0)
    for name, share in (pair for e in entries for pair in e.shares.items()):
        totals[name] += share
    bound = max(limit, noise)
    reading = Depth(
        axis, layers, log_d, theil_sen(log_d) * (len(layers) - 1), float(log_d[-1] - log_d[0]), noise,
        bound, max(2 * bound, 6.0), entries, **totals,
    )  # fmt: skip
    return _judged(trace, reading)


def theil_sen(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The median slope between all pairs (Theil 1950, Sen 1968), of at most 400 evenly spaced points."""
    y = np.asarray(values, dtype=np.float64)
    i, j, apart = _pairs(len(y))
    if not len(i):
        return 0.0
    slopes = (y[j] - y[i]) / apart
    slopes.sort()
    return 0.5 * float(slopes[(len(i) - 1) // 2] + slopes[len(i) // 2])  # np.median takes far longer


@lru_cache(maxsize=8)
def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """All pairs of places, of at most 400 evenly spaced ones, and how far apart they are."""
    at = np.linspace(0, count - 1, min(count, 400)).round().astype(np.intp)
    i, j = np.triu_indices(len(at), 1)
    return at[i], at[j], at[j] - at[i]


def _layers(trace: Trace, axis: Axis) -> list[int]:
    """Places on the axis with a layer below them, without the output layer and frozen layers at the input."""
    facts = [trace.sites[i].facts for i in axis.sites]
    found = [k for k, f in enumerate(facts[:-1]) if f.get("row_layers") or f.get("row_recurrent")]
    while (
        found
        and not facts[found[-1]].get("row_trainable", True)
        and not facts[found[-1]].get("row_recurrent")
    ):
        found.pop()
    if found and facts[found[0]].get("simple"):
        found = found[1:]
    return found


def _width(trace: Trace, site: int) -> float:
    """Units whose randomness averages out: the features, and for images up to nine positions each."""
    shape = trace.sites[site].facts.get("shape") or (1, 64)
    if len(shape) >= 4:
        return float(shape[1] * min(9, math.prod(shape[2:])))
    return float(max(1, shape[-1]))


def _resampled(axis: Axis, places: Sequence[int], entries: Sequence[Entry]) -> NDArray[np.float64]:
    """What poolings and selections above each layer did to the norm: they lose nothing."""
    gains = [e.shares.get("resampling", 0.0) for e in entries]
    passed = np.cumsum([0.0, *gains])
    return passed[[k - places[0] for k in places]]


def _entry(trace: Trace, axis: Axis, k: int, log: Sequence[float]) -> Entry:
    """One row; `log`: ln of the gradient at every site."""
    site, facts = axis.sites[k], trace.sites[axis.sites[k]].facts
    gain = difference(log[site], log[axis.sites[k + 1]])
    if facts.get("simple"):
        weight = trace.value(site, "weight_log")
        if math.isfinite(weight):
            return Entry(site, gain, {"weights": weight, "rest": gain - weight})
        slope = trace.value(site, "slope_sq")
        if slope > 0:
            part = 0.5 * math.log(slope)
            account = "saturated" if trace.value(site, "saturated") > SATURATED else "slope"
            return Entry(site, gain, {account: part, "rest": gain - part})
    account = _account(facts)
    joined = _joined(trace, site, gain) if account == "rest" and facts.get("row_layers") else None
    return joined or Entry(site, gain, {account: gain})


def _joined(trace: Trace, site: int, gain: float) -> Entry | None:
    """A row of parallel layers, as in v(x) * g(x) or sigmoid(v(x)) * sigmoid(g(x)); None where none is seen.

    Each path has a layer: the mean of their weights' parts is the weights'. What is lost beyond it belongs to
    squashing activations, where there are any. A row that loses less has a path around its layers.
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
        told = {"weights": part, "rest": gain - part}
        return Entry(site, gain, told, {"weights": layers}) if same else None
    if gain >= min(part, 0.0):
        return None
    flat = float(np.median([trace.value(i, "saturated") for i in units])) > SATURATED
    account = "saturated" if flat else "slope"
    return Entry(site, gain, {"weights": part, account: gain - part}, {"weights": layers, account: units})


def _inside(trace: Trace) -> dict[Any, list[int]]:
    """The sites between the cuts of the main axis, by the cut above them."""
    key = "inside"
    if key not in trace.derived:
        found: dict[Any, list[int]] = {}
        for i in trace.where("node", cut=False):
            found.setdefault(trace.sites[i].facts.get("segment"), []).append(i)
        trace.derived[key] = found
    inside: dict[Any, list[int]] = trace.derived[key]
    return inside


def _account(facts: SiteFacts) -> str:
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


def _judged(trace: Trace, reading: Depth) -> Depth:
    from dataclasses import replace

    if abs(reading.log_ratio) <= reading.limit:
        odd = _pinched(reading) if abs(reading.endpoint) > reading.limit else ()
        if not odd:
            return reading
        cause = "INI001" if reading.endpoint < 0 else "INI002"
        return replace(reading, cause=cause, culprits=odd, pinched=True)
    if _normalised(trace, reading) and abs(reading.log_ratio) <= NORMALISED * reading.limit:
        return reading
    cause = _vanishing(reading) if reading.log_ratio < 0 else _exploding(trace, reading)
    return replace(reading, cause=cause, culprits=_culprits(reading, cause))


def _normalised(trace: Trace, reading: Depth) -> bool:
    """Whether most layers have a normalisation: steps then follow the weights' size."""
    facts = [trace.sites[e.site].facts for e in reading.entries]
    layers = sum(bool(f.get("row_layers")) for f in facts)
    return 2 * sum(bool(f.get("row_norm")) for f in facts) >= max(1, layers)


def _pinched(reading: Depth) -> tuple[int, ...]:
    """Layers whose weights alone stand far from the others', in the direction of the endpoints' ratio."""
    own = {e.site: e.shares["weights"] for e in reading.entries if "weights" in e.shares and not e.bearers}
    if len(own) < 2:
        return ()
    middle, sign = float(np.median(list(own.values()))), math.copysign(1.0, reading.endpoint)
    far = {site: sign * (w - middle) for site, w in own.items()}
    return tuple(sorted((s for s, x in far.items() if x > PINCHED), key=lambda s: -far[s]))


def _vanishing(reading: Depth) -> str:
    weights = reading.weights + reading.normalisation
    if reading.saturated < min(reading.slope, reading.weights, -1.0):
        return "ACT001"
    if _contracting(reading, weights):
        return "ACT002"
    if reading.residual < 0.5 * reading.log_ratio or not _weighed(reading):
        return ""
    return "INI001" if weights + reading.slope < SHARE * reading.log_ratio else ""


def _contracting(reading: Depth, weights: float) -> bool:
    """Whether activations of a small slope, wherever they stand, bear half of it, and more than the weights.

    Each may cost what a ReLU does: weights are drawn to make up for that.
    """
    parts = [e.shares["slope"] for e in reading.entries if steep(e)]
    borne, free = sum(parts), RELU * len(parts)
    return borne < CONTRACTING * len(parts) and borne < 0.5 * reading.log_ratio and borne + free <= weights


def steep(entry: Entry) -> bool:
    """Whether a row's activation may be one that contracts; their mean must."""
    return entry.shares.get("slope", 0.0) < 0.7 * CONTRACTING


def _exploding(trace: Trace, reading: Depth) -> str:
    facts = [trace.sites[e.site].facts for e in reading.entries]
    batch = sum(bool(f.get("row_batch_norm")) and not f.get("row_residual") for f in facts)
    if batch >= 0.5 * reading.steps:
        return "NRM001"
    bare = sum(
        e.gain
        for e, f in zip(reading.entries, facts, strict=True)
        if f.get("row_residual") and not f.get("row_norm")
    )
    if bare > 0.5 * reading.log_ratio:
        return "NRM002" if sum(bool(f.get("stream_norm")) for f in facts) >= 0.5 * reading.steps else "DEP002"
    if reading.residual > 0.5 * reading.log_ratio:
        return ""  # normalised branches add a fixed amount: the growth is that of a sum
    if _weighed(reading) and max(reading.weights + reading.slope + reading.saturated, reading.weights) > 0:
        return "INI002"
    return "NRM002" if any(f.get("stream_norm") for f in facts) else ""


def _weighed(reading: Depth) -> bool:
    """Whether the weights of any layer on the axis are known to scale the gradient."""
    return any("weights" in e.shares for e in reading.entries)


def _culprits(reading: Depth, cause: str) -> tuple[int, ...]:
    """The sites whose account bears the cause, worst first."""
    accounts = {
        "ACT001": ("saturated",), "ACT002": ("slope",), "INI001": ("weights",), "INI002": ("weights",),
        "DEP002": ("residual",), "NRM001": ("normalisation",), "NRM002": ("residual", "normalisation"),
    }.get(cause, ())  # fmt: skip
    sign = math.copysign(1.0, reading.log_ratio)
    held = [e for e in reading.entries if any(a in e.shares for a in accounts)]
    if cause == "ACT002":
        held = [e for e in held if steep(e)]
    held.sort(key=lambda e: -sign * sum(e.shares.get(a, 0.0) for a in accounts))
    return tuple(i for e in held for a in accounts if a in e.shares for i in e.bearers.get(a, (e.site,)))
