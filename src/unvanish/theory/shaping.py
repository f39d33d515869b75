"""Activations tailored to a depth: TAT for leaky ReLU, DKS for smooth functions.

Notable: both choose the function so that over all L layers the correlation between two samples moves by a
given amount, while length and gradient stay; the weights then have unit gain.

References: Zhang, Botev and Martens 2022 (TAT); Martens et al. 2021 (DKS).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from unvanish.theory import quadrature
from unvanish.theory.activations import Curve, curve
from unvanish.theory.closed_forms import leaky_correlation
from unvanish.theory.quadrature import Array


def tat_slope(depth: int, target: float = 0.9) -> float:
    """The negative slope of the leaky ReLU that maps correlation 0 to `target` over `depth` layers.

    ValueError if depth is below 1 or target outside (0, 1). If even a ReLU stays below the target, the slope
    is 0.
    """
    if depth < 1 or not 0 < target < 1:
        raise ValueError(f"depth is {depth}, target {target}; expected at least 1, and between 0 and 1")

    def reached(slope: float) -> float:
        c = 0.0
        for _ in range(depth):
            c = leaky_correlation(c, slope)
        return c

    if reached(0.0) <= target:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) > target else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Shape:
    """gamma * (phi(alpha x + beta) + delta)."""

    alpha: float
    beta: float
    gamma: float
    delta: float


@lru_cache(maxsize=64)
def dks(activation: str, depth: int, zeta: float = 1.5) -> Shape:
    """The shape of a smooth activation for a depth: Q(1) = Q'(1) = 1, C(0) = 0 and C'(1) = zeta^(1/depth).

    ValueError if Newton's method finds none; for functions with kinks use TAT.
    """
    phi, wanted = curve(activation), zeta ** (1 / depth)
    point = np.array([math.log(0.3), 0.1])
    for _ in range(100):
        residual = _residual(phi, point, wanted)
        if np.abs(residual).max() < 1e-10:
            break
        jacobian = np.stack(
            [(_residual(phi, point + h, wanted) - residual) / 1e-6 for h in 1e-6 * np.eye(2)], 1
        )
        step = np.linalg.lstsq(jacobian, -residual, rcond=None)[0]
        scale = 1.0
        while (
            scale > 1e-4
            and not np.abs(_residual(phi, point + scale * step, wanted)).max() < np.abs(residual).max()
        ):
            scale /= 2
        point = point + scale * step
    else:
        raise ValueError(
            f"DKS found no shape of {activation} for {depth} layers; try a smooth function, or TAT"
        )
    return _shape(phi, point)


def _moments(phi: Curve, point: Array) -> tuple[float, float, float, Array, Array, Array, Array]:
    alpha, beta = math.exp(min(3.0, max(-8.0, float(point[0])))), min(20.0, max(-20.0, float(point[1])))
    z, w = quadrature.nodes()
    value, slope = phi.value(alpha * z + beta), phi.slope(alpha * z + beta)
    average = float(w @ value)
    return alpha, beta, average, value - average, slope, z, w


def _shape(phi: Curve, point: Array) -> Shape:
    alpha, beta, average, centred, _, _, w = _moments(phi, point)
    return Shape(alpha, beta, float(w @ centred**2) ** -0.5, -average)


def _residual(phi: Curve, point: Array, wanted: float) -> Array:
    alpha, _, _, centred, slope, z, w = _moments(phi, point)
    power = max(float(w @ centred**2), 1e-300)
    grown = float(w @ (centred * slope * alpha * z)) / power
    gain = alpha**2 * float(w @ slope**2) / power
    return np.array([grown - 1.0, (gain - wanted) / (wanted - 1 + 1e-3)])
