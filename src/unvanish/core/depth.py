"""The gradient along the depth: how much of it is left, whether that is chance, and what bears the loss.

Notable:
- d is the gradient at a layer's output. Its Theil-Sen slope over the layers, times their number, is the ratio
  that decides; the output layer stays out of it.
- Poolings and selections spread or pick a gradient without losing any: what they do to its norm is left out.
- Narrow nets wander: std of ln ||d|| over the depth is sqrt(kappa sum 1/n) / 2 with kappa = 5 for ReLU (Hanin
  and Nica 2020), so the limit is max(3, 1.5 sqrt(5 sum 1/n)) nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from unvanish.core.accounts import ACCOUNTS, Entry, enter_all, has_pole, return_poles
from unvanish.core.causes import DepthProfile, blame
from unvanish.core.diagnosis import Direction
from unvanish.core.limits import ERROR, KAPPA, NOISE, POSITIONS, RATIO
from unvanish.core.trace import Axis, Trace

PAIRED = 400  # points that are compared in pairs, at most


@dataclass(frozen=True)
class Depth(DepthProfile):
    """The reading of one depth axis: its profile, and who is to blame.

    `cause`: the code of the rule that bears it, or ""; `culprits`: the sites that bear it, worst first;
    `pinched`: single layers stand out.
    """

    cause: str = ""
    culprits: tuple[int, ...] = ()
    pinched: bool = False

    @property
    def ratio(self) -> float:
        """The ratio that was judged: the endpoints' if one layer stands out, else the trend's."""
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


def read(trace: Trace, *, limit: float = RATIO) -> Depth | None:
    """The reading of the main depth axis, kept with the trace; None with fewer than two layers that learn."""
    key = ("depth", limit)
    if key not in trace.derived:
        axis = trace.depth()
        profile = None if axis is None else _profile(trace, axis, limit)
        found = None if profile is None else Depth(**vars(profile), **vars(blame(trace, profile)))
        trace.derived[key] = found
    kept: Depth | None = trace.derived[key]
    return kept


def _profile(trace: Trace, axis: Axis, limit: float) -> DepthProfile | None:
    log = trace.column("backward_log").tolist()
    places = [k for k in _find_layers(trace, axis) if math.isfinite(log[axis.sites[k]])]
    if len(places) < 2:
        return None
    layers = tuple(axis.sites[k] for k in places)
    first = next((k for k in range(places[0]) if has_pole(trace, axis.sites[k])), places[0])
    every = return_poles(trace, enter_all(trace, axis, range(first, places[-1]), log))
    entries = every[places[0] - first :]
    log_d = np.array([log[i] for i in layers]) - _resampling(places, entries)
    noise = NOISE * math.sqrt(KAPPA * sum(1 / _width(trace, i) for i in layers))
    totals = dict.fromkeys(ACCOUNTS, 0.0)
    for name, share in (pair for e in entries for pair in e.shares.items()):
        totals[name] += share
    bound = max(limit, noise)
    return DepthProfile(
        axis=axis,
        layers=layers,
        log_d=log_d,
        log_ratio=theil_sen(log_d) * (len(layers) - 1),
        endpoint=float(log_d[-1] - log_d[0]),
        noise=noise,
        limit=bound,
        critical=ERROR * max(bound, RATIO),
        entries=entries,
        **totals,
    )


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
    """All pairs of places, of at most PAIRED evenly spaced ones, and how far apart they are."""
    at = np.linspace(0, count - 1, min(count, PAIRED)).round().astype(np.intp)
    i, j = np.triu_indices(len(at), 1)
    return at[i], at[j], at[j] - at[i]


def _find_layers(trace: Trace, axis: Axis) -> list[int]:
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
        return float(shape[1] * min(POSITIONS, math.prod(shape[2:])))
    return float(max(1, shape[-1]))


def _resampling(places: Sequence[int], entries: Sequence[Entry]) -> NDArray[np.float64]:
    """What poolings and selections above each layer did to the norm: they lose nothing."""
    gains = [e.shares.get("resampling", 0.0) for e in entries]
    passed = np.cumsum([0.0, *gains])
    return passed[[k - places[0] for k in places]]
