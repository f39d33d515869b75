"""The infinitely wide network: lengths, correlations and gradients from layer to layer.

Notable:
- q = E z^2 of the pre-activations; q' = sw^2 <phi^2>_q + sb^2; chi = sw^2 <phi'^2>_q is the gain of ||d||^2
  per layer (Poole et al. 2016; Schoenholz et al. 2017), <.>_q is the mean over N(0, q).
- Derivatives with respect to q are taken by parts, d<f>_q/dq = <f (z^2/q - 1)>_q / (2 q), so kinks need no
  second derivative.
- At width N the gradient is a product of random numbers: its mean log gain is ln chi - kappa / (2N), and ln
  ||d||^2 over a depth has the deviation sqrt(kappa sum 1/N) (Hanin and Nica 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from unvanish.theory import quadrature
from unvanish.theory.activations import Curve, curve

STEPS = 2000


@dataclass(frozen=True)
class Critical:
    """Weights and biases at which the gradient keeps its size: sw, sb, the length q, its stability.

    `stability` is dq'/dq at q: below 1 the length returns to q after a perturbation, above 1 it diverges.
    """

    sw: float
    sb: float
    q: float
    stability: float

    @property
    def stable(self) -> bool:
        """Whether a perturbed length does not diverge."""
        return self.stability <= 1 + 1e-6


@dataclass(frozen=True)
class Field:
    """The mean-field maps of one activation function."""

    phi: Curve

    def power(self, q: float) -> float:
        """<phi^2>_q."""
        return quadrature.mean(lambda z: self.phi.value(z) ** 2, q, self.phi.kinks)

    def slope(self, q: float) -> float:
        """<phi'^2>_q."""
        return quadrature.mean(lambda z: self.phi.slope(z) ** 2, q, self.phi.kinks)

    def average(self, q: float) -> float:
        """<phi>_q."""
        return quadrature.mean(self.phi.value, q, self.phi.kinks)

    def length(self, q: float, sw: float, sb: float = 0.0) -> float:
        """The next layer's q."""
        return sw**2 * self.power(q) + sb**2

    def stability(self, q: float, sw: float) -> float:
        """dq'/dq = sw^2 <phi'^2 + phi phi''>_q."""
        z, w = quadrature.nodes()
        squares = self.phi.value(math.sqrt(q) * z) ** 2
        return float(sw**2 * (w @ (squares * (z**2 - 1))) / (2 * q))

    def fixed_point(self, sw: float, sb: float = 0.0, start: float = 1.0) -> float:
        """The length q* that the layers approach from `start`; 0.0 if it fades, inf if it diverges.

        Found by iteration with Aitken's acceleration. A homogeneous function without bias multiplies every
        length by the same factor: `start` if that is 1.
        """
        q = start
        for _ in range(STEPS):
            once = self.length(q, sw, sb)
            if once < 1e-12:
                return 0.0
            if once > 1e12:
                return math.inf
            if abs(once - q) <= 1e-12 * q:
                return once
            twice = self.length(once, sw, sb)
            bend = twice - 2 * once + q
            leap = q - (once - q) ** 2 / bend if bend else twice
            closer = abs(twice - once) < abs(once - q)
            q = leap if closer and 0.5 * min(q, twice) < leap < 2 * max(q, twice) else twice
        return q

    def chi(self, q: float, sw: float) -> float:
        """The gain of the squared gradient per layer."""
        return sw**2 * self.slope(q)

    def correlation(self, c: float, q: float, sw: float, sb: float = 0.0) -> float:
        """The next layer's correlation between two samples of length q whose correlation is c."""
        joint = quadrature.pair_mean(self.phi.value, q, c)
        return (sw**2 * joint + sb**2) / (sw**2 * self.power(q) + sb**2)

    def depth_scale(self, sw: float, sb: float = 0.0, start: float = 1.0) -> float:
        """Xi = 1/|ln chi|, layers for a factor e in ||d||^2; inf if critical, 0 if the slope vanishes."""
        q = self.fixed_point(sw, sb, start)
        chi = self.chi(min(max(q, 1e-12), 1e12), sw)
        return math.inf if abs(math.log(chi)) < 1e-12 else 1 / abs(math.log(chi)) if chi > 0 else 0.0

    def correlation_scale(self, sw: float, sb: float = 0.0) -> float:
        """Layers over which the correlation's distance from its fixed point changes by a factor of e."""
        q = self.fixed_point(sw, sb)
        if not 0 < q < math.inf:
            return 0.0
        chi = self.chi(q, sw)
        if chi <= 1 + 1e-12:
            return math.inf if chi > 1 - 1e-12 else -1 / math.log(chi)
        c = 0.5
        for _ in range(200):
            c, before = self.correlation(c, q, sw, sb), c
            if abs(c - before) < 1e-10:
                break
        gain = self._correlation_slope(c, q, sw)
        return math.inf if gain >= 1 else -1 / math.log(gain) if gain > 0 else 0.0

    def _correlation_slope(self, c: float, q: float, sw: float) -> float:
        return sw**2 * quadrature.pair_mean(self.phi.slope, q, c)

    def critical(self, q: float = 1.0) -> Critical | None:
        """The critical point that keeps the length q, None if the bias variance would be negative."""
        sw = 1 / math.sqrt(self.slope(q))
        rest = q - sw**2 * self.power(q)
        if rest < -1e-9 * q:
            return None
        return Critical(sw, math.sqrt(max(0.0, rest)), q, self.stability(q, sw))

    def kappa(self, q: float) -> float:
        """3 <phi'^4> / <phi'^2>^2 - 1: the spread at finite width; 5 for ReLU, 2 for a linear layer."""
        fourth = quadrature.mean(lambda z: self.phi.slope(z) ** 4, q, self.phi.kinks)
        return 3 * fourth / self.slope(q) ** 2 - 1

    def log_chi(self, q: float, sw: float, width: float = math.inf) -> float:
        """E ln chi at a finite width: ln chi - kappa / (2 width)."""
        return math.log(self.chi(q, sw)) - self.kappa(q) / (2 * width)


def field(activation: str | Curve | Any, **settings: Any) -> Field:
    """The mean-field maps of an activation by name, callable or module."""
    return Field(curve(activation, **settings))


def gains(activation: str | Curve | Any, q: float = 1.0, **settings: Any) -> dict[str, float]:
    """The gains at which a layer keeps length or gradient, at pre-activations of variance q.

    `forward`: <phi^2>^-1/2 keeps the length; `centred`: the same with the mean removed (before a
    normalisation or weight standardisation); `backward`: <phi'^2>^-1/2 keeps the gradient.
    """
    maps = field(activation, **settings)
    power, average = maps.power(q), maps.average(q)
    return {
        "forward": power**-0.5,
        "centred": max(power - average**2, np.finfo(float).tiny) ** -0.5,
        "backward": maps.slope(q) ** -0.5,
    }
