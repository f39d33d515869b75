"""Curves of a trace: gradient and activations along the depth, gradients back through time.

Notable:
- Logs in a trace are natural; everything here is in decades (log10).
- Gradients are relative, 0 at the loss (or at the last step): the scale of the loss does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.core.depth import theil_sen
from unvanish.core.trace import Trace
from unvanish.reports.parts.words import decades, plural

Curve = NDArray[np.float64]
LN10 = math.log(10.0)
MOST = 1e6


@dataclass(frozen=True)
class DepthSeries:
    """Along the depth axis, from the loss to the input: names, gradient, activations; decades."""

    names: tuple[str, ...]
    gradient: Curve
    activation: Curve


@dataclass(frozen=True)
class TimeSeries:
    """Back through one recurrence, decades: `state` is ||dL/dh_t||, `carry` the gain since the last step."""

    path: str
    steps: tuple[int, ...]
    state: Curve
    carry: Curve

    @property
    def curve(self) -> Curve:
        """`carry` if it was measured, else `state`."""
        return self.carry if np.any(~np.isnan(self.carry)) else self.state

    @property
    def total(self) -> float:
        """Decades from the last step back to the first."""
        return float(self.curve[0])

    @property
    def exponent(self) -> float:
        """The Lyapunov exponent, nats a step: how fast the carried gradient grows (+) or fades (-)."""
        known = self.curve[np.isfinite(self.curve)]
        return -theil_sen(known) * LN10 if len(known) > 1 else math.nan

    @property
    def phrase(self) -> str:
        """The total, the Lyapunov exponent and the horizon of 3 nats, as a phrase."""
        text = f"{decades(self.total)} decades back over {plural(len(self.steps) - 1, 'step')}"
        if math.isnan(self.exponent):
            return text
        horizon = 3 / abs(self.exponent) if self.exponent else math.inf
        reach = f"{plural(round(horizon), 'step')}" if horizon < 1e4 else "over 10,000 steps"
        return f"{text}, Lyapunov exponent {self.exponent + 0.0:+.2g} nats a step, horizon {reach}"


def read_depth(trace: Trace) -> DepthSeries | None:
    """The curves of the main depth axis; None without an axis or a measurement along it."""
    axis = trace.depth()
    if axis is None or not trace.values.size or len(axis.sites) < 2:
        return None
    index = np.asarray(axis.sites)
    gradient = _relative(_column(trace, "backward_log")[index] / LN10)
    with np.errstate(divide="ignore", invalid="ignore"):
        activation = np.log10(_column(trace, "forward_rms")[index])
    if np.all(np.isnan(gradient)) and np.all(np.isnan(activation)):
        return None
    return DepthSeries(tuple(trace.sites[i].label for i in axis.sites), gradient, activation)


def read_times(trace: Trace) -> list[TimeSeries]:
    """One entry for each recurrent module with measured steps, in the order of the sites."""
    if not trace.values.size:
        return []
    found: dict[str, list[tuple[int, int]]] = {}
    for i in trace.where("step"):
        facts = trace.sites[i].facts
        found.setdefault(str(facts.get("of", trace.sites[i].path)), []).append((int(facts.get("step", 0)), i))
    curves = [_read_time(trace, path, sorted(rows)) for path, rows in found.items()]
    return [c for c in curves if len(c.steps) > 1 and np.any(~np.isnan(np.r_[c.state, c.carry]))]


def thin(curve: Sequence[float] | Curve, cells: int) -> Curve:
    """At most `cells` values, each the smallest of its stretch: averaging would hide a dip or a zero."""
    values = np.asarray(curve, dtype=np.float64)
    if len(values) <= cells:
        return values
    return np.array([_smallest(part) for part in np.array_split(values, cells)])


def _read_time(trace: Trace, path: str, rows: list[tuple[int, int]]) -> TimeSeries:
    index = [i for _, i in rows]
    state = _relative(_column(trace, "state_log")[index][::-1] / LN10)[::-1]
    return TimeSeries(path, tuple(step for step, _ in rows), state, _column(trace, "carry_log")[index] / LN10)


def clip_curve(curve: Curve) -> Curve:
    """The curve within a million decades, so that drawing it cannot overflow; infinities stay."""
    return np.where(np.isfinite(curve), np.clip(curve, -MOST, MOST), curve)


def _column(trace: Trace, statistic: str) -> Curve:
    """A statistic for every site; all NaN if the trace does not have it."""
    return trace.column(statistic) if statistic in trace.statistics else np.full(len(trace.sites), np.nan)


def _relative(curve: Curve) -> Curve:
    """The curve minus its first finite value; -inf stays -inf."""
    finite = np.flatnonzero(np.isfinite(curve))
    return curve - curve[finite[0]] if len(finite) else curve


def _smallest(part: Curve) -> float:
    known = part[~np.isnan(part)]
    return float(known.min()) if len(known) else math.nan
