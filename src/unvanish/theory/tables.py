"""An activation's Gaussian means for any length and correlation, fast enough for a thousand layers.

Notable:
- Means over N(0, q) are computed once on a grid of ln q and interpolated from four points (error 1e-6); a
  homogeneous function needs one point.
- <phi(u) phi(v)> at correlation c is the series sum a_k^2 c^k in normalised Hermite polynomials (Daniely et
  al. 2016); the rest of the series follows from <phi^2> and is appended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from unvanish.theory import quadrature
from unvanish.theory.activations import Curve
from unvanish.theory.quadrature import Array

LOW, HIGH, STEP, ORDERS = -30.0, 30.0, 0.1, 64
LARGEST = 1e60  # of a value or a slope
COLUMNS = ("power", "slope", "fourth", "average", "saturated", "dead")


@dataclass(frozen=True, eq=False)
class MeansTable:
    """<phi^2>, <phi'^2>, <phi'^4>, <phi> and the shares of flat and zero slopes of one activation, by q."""

    curve: Curve
    peak: float | None = None  # the largest |phi'|, for functions bounded on both sides
    series: dict[tuple[float, bool], Array] = field(default_factory=dict, repr=False)  # computed so far

    @cached_property
    def homogeneous(self) -> bool:
        """Whether phi(s z) = s phi(z) for s > 0."""
        return self.curve.homogeneous

    @cached_property
    def _grid(self) -> Array:
        """(points, columns)."""
        logs = np.zeros(1) if self.homogeneous else np.arange(LOW, HIGH + STEP / 2, STEP)
        if self.curve.kinks:
            return np.concatenate(
                [self._row(log, *quadrature.nodes_with_edges(self._scaled(log))) for log in logs]
            )
        return self._row(logs[:, None], *quadrature.nodes(200, 8))

    def _scaled(self, log: float) -> list[float]:
        flat = [k * math.exp(-log / 2) for k in self.curve.kinks]
        return flat or [0.0]

    def _row(self, logs: Array | float, z: Array, w: Array) -> Array:
        x = np.atleast_2d(np.exp(0.5 * np.asarray(logs)) * z)
        value, slope = _bound(self.curve.value(x)), _bound(self.curve.slope(x))
        flat = np.abs(slope) < 0.05 * self.peak if self.peak else np.zeros_like(slope)
        parts = (value**2, slope**2, slope**4, value, flat, slope == 0)
        return np.stack([np.asarray(p, dtype=np.float64) @ w for p in parts], 1)

    def read(self, name: str, q: Array | float) -> Array:
        """One mean at each length q; lengths beyond e^+-30 get the value at the end of the grid."""
        column = self._grid[:, COLUMNS.index(name)]
        q = np.asarray(q, dtype=np.float64)
        if self.homogeneous:
            power = {"power": 1.0, "average": 0.5}.get(name, 0.0)
            return np.asarray(column[0] * np.maximum(q, 1e-300) ** power)
        place = np.clip((np.log(np.maximum(q, 1e-300)) - LOW) / STEP, 1, len(column) - 3)
        low = place.astype(int)
        t = place - low
        a, b, c, d = (column[low + k] for k in (-1, 0, 1, 2))
        found = (
            -t * (t - 1) * (t - 2) / 6 * a
            + (t + 1) * (t - 1) * (t - 2) / 2 * b
            - (t + 1) * t * (t - 2) / 2 * c
            + (t + 1) * t * (t - 1) / 6 * d
        )
        return np.asarray(found)

    def overlap(self, q: float, correlation: float) -> float:
        """<phi(u) phi(v)> / <phi^2> for two inputs of length q and this correlation."""
        return self._series(q, correlation, slope=False)

    def slope_overlap(self, q: float, correlation: float) -> float:
        """<phi'(u) phi'(v)> / <phi'^2>."""
        return self._series(q, correlation, slope=True)

    def _series(self, q: float, correlation: float, slope: bool) -> float:
        if not 0 < q < math.inf:
            return 1.0
        squares = self._coefficients(0.0 if self.homogeneous else round(math.log(q), 3), slope)
        c = min(1.0, max(-1.0, correlation))
        return float(np.polynomial.polynomial.polyval(c, squares))

    def _coefficients(self, log: float, slope: bool) -> Array:
        """a_k^2 / sum a_k^2 for k = 0 ... ORDERS - 1, the rest of the sum at the end."""
        key = (log, slope)
        if key not in self.series:
            x = math.exp(log / 2) * _hermite()[0]
            read = _bound((self.curve.slope if slope else self.curve.value)(x))
            squares = (_hermite()[1] @ read) ** 2
            total = float(_hermite()[1][0] @ read**2)
            rest = max(0.0, total - float(squares.sum()))
            even, odd = float(squares[-16::2].sum()), float(squares[-15::2].sum())
            share = even / (even + odd) if even + odd > 0 else 0.5  # ORDERS is even
            self.series[key] = np.append(squares, [rest * share, rest * (1 - share)]) / max(total, 1e-300)
        return self.series[key]

    def shift(self, mean: float, deviation: float) -> Shifted:
        """The means for inputs ~ N(mean, deviation^2), such as a stream that sums rectified branches."""
        return _shift(self, float(f"{mean:.4g}"), float(f"{deviation:.4g}"))


@dataclass(frozen=True)
class Shifted:
    """One activation's means at one mean and deviation; overlaps as functions of the correlation."""

    power: float
    slope: float
    fourth: float
    average: float
    values: Array
    slopes: Array

    def overlap(self, correlation: float) -> float:
        """<phi(u) phi(v)> / <phi^2>."""
        return float(np.polynomial.polynomial.polyval(min(1.0, max(-1.0, correlation)), self.values))

    def slope_overlap(self, correlation: float) -> float:
        """<phi'(u) phi'(v)> / <phi'^2>."""
        return float(np.polynomial.polynomial.polyval(min(1.0, max(-1.0, correlation)), self.slopes))


@lru_cache(maxsize=4096)
def _shift(read: MeansTable, mean: float, deviation: float) -> Shifted:
    z, rows = _hermite()
    x = mean + deviation * z
    value, slope = _bound(read.curve.value(x)), _bound(read.curve.slope(x))

    def series(y: Array) -> Array:
        squares = (rows @ y) ** 2
        total = float(rows[0] @ y**2)
        return np.append(squares, max(0.0, total - float(squares.sum()))) / max(total, 1e-300)

    power, second, fourth, average = (float(rows[0] @ x) for x in (value**2, slope**2, slope**4, value))
    return Shifted(power, second, fourth, average, series(value), series(slope))


def _bound(y: Array) -> Array:
    """Clipped so that the fourth power is finite (exp); NaN (the root of a negative number) becomes 0."""
    return np.clip(np.nan_to_num(y, nan=0.0, posinf=LARGEST, neginf=-LARGEST), -LARGEST, LARGEST)


@lru_cache(maxsize=1)
def _hermite() -> tuple[Array, Array]:
    """Nodes, and for k = 0 ... ORDERS - 1 the weights of a mean against He_k / sqrt(k!)."""
    z, w = quadrature.nodes(200, 8)
    rows = [np.ones_like(z), z]
    for k in range(1, ORDERS - 1):
        rows.append((z * rows[k] - math.sqrt(k) * rows[k - 1]) / math.sqrt(k + 1))
    return z, np.stack(rows) * w


@lru_cache(maxsize=64)
def table(
    activation: str, settings: tuple[tuple[str, float], ...] = (), peak: float | None = None
) -> MeansTable:
    """The table of a named activation; ValueError if it is unknown."""
    from unvanish.theory.activations import curve

    return MeansTable(curve(activation, **dict(settings)), peak)
