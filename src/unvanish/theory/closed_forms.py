"""Closed forms for leaky ReLU and erf; exact, and used to test the quadrature.

Source: Cho and Saul 2009 (arc-cosine kernel), Williams 1997 (erf kernel), Zhang et al. 2022 (leaky ReLU,
TAT).
"""

from __future__ import annotations

import math


def leaky_correlation(c: float, slope: float = 0.0) -> float:
    """C(c) of a leaky ReLU without bias: [(1-a)^2 (sqrt(1-c^2) + (pi - arccos c) c)/pi + 2ac]/(1+a^2)."""
    c = max(-1.0, min(1.0, c))
    bend = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
    return ((1 - slope) ** 2 * bend + 2 * slope * c) / (1 + slope**2)


def leaky_gain(slope: float = 0.0) -> float:
    """sqrt(2/(1+a^2)): the gain that keeps both the length and the gradient."""
    return math.sqrt(2 / (1 + slope**2))


def erf_power(q: float, c: float = 1.0) -> float:
    """<erf(u) erf(v)> for variance q and correlation c: (2/pi) arcsin(2qc/(1+2q))."""
    return 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q))


def erf_slope(q: float) -> float:
    """<erf'^2>_q = (4/pi) / sqrt(1+4q)."""
    return 4 / math.pi / math.sqrt(1 + 4 * q)
