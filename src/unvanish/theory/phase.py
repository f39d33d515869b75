"""The order-chaos diagram of an activation: the trainable depth for given weights and biases.

Notable: at weights of deviation sw / sqrt(fan_in) and biases of deviation sb a net settles at a length q*;
each layer then multiplies the squared gradient by chi = sw^2 <phi'^2>. chi < 1: order, samples become alike
and gradients vanish; chi > 1: chaos, gradients explode. ||d|| stays within e^3 over 6 / |ln chi| layers,
which is about how deep the net can be trained (Schoenholz et al. 2017, "6 xi"). A diverging length is read at
the end of the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from unvanish.theory.meanfield import Critical, field
from unvanish.theory.quadrature import Array
from unvanish.theory.tables import MeansTable, table

LAYERS = 400


@dataclass(frozen=True)
class Phase:
    """Over sw (columns) and sb (rows): ln chi and the trainable depth; the critical line."""

    activation: str
    sw: Array
    sb: Array
    log_chi: Array
    critical: tuple[Critical, ...]

    @property
    def depth(self) -> Array:
        """6 / |ln chi| layers, at most a million."""
        return np.asarray(6 / np.maximum(np.abs(self.log_chi), 6e-6))


def phase(activation: str, *, columns: int = 64, rows: int = 24, sw: float = 3.0, sb: float = 1.0) -> Phase:
    """The diagram from (0, 0) up to weights sw and biases sb; ValueError if the activation is unknown."""
    read = table(activation)
    across, up = np.linspace(sw / columns, sw, columns), np.linspace(0, sb, rows)
    log_chi = log_chi_at_rest(read, across[None, :], up[:, None])
    lengths = np.geomspace(1e-4, 30.0, 60)
    points = [field(activation).critical(float(q)) for q in lengths]
    line = [p for p in points if p is not None and p.sw <= sw and p.sb <= sb]
    return Phase(read.curve.name, across, up, log_chi, tuple(line))


def log_chi_at_rest(read: MeansTable, sw: Array | float, sb: Array | float) -> Array:
    """Ln chi at the fixed point of the length, for arrays of weights and biases."""
    sw, sb = np.asarray(sw, dtype=np.float64), np.asarray(sb, dtype=np.float64)
    q = np.ones(np.broadcast_shapes(sw.shape, sb.shape))
    for _ in range(LAYERS):
        q = np.clip(sw**2 * read.read("power", q) + sb**2, math.exp(-30), math.exp(30))
    return np.asarray(np.log(np.maximum(sw**2 * read.read("slope", q), 1e-300)))


def depth_of(activation: str, sw: float, sb: float) -> tuple[float, float]:
    """(ln chi, trainable depth) at one point."""
    log = float(log_chi_at_rest(table(activation), sw, sb))
    return log, 6 / max(abs(log), 6e-6)
