"""TAT and DKS: the defining conditions, their ends, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unvanish.theory import closed_forms, quadrature
from unvanish.theory.activations import curve
from unvanish.theory.shaping import dks, tat_slope


def _reached(depth: int, slope: float) -> float:
    c = 0.0
    for _ in range(depth):
        c = closed_forms.leaky_correlation(c, slope)
    return c


@pytest.mark.parametrize(("depth", "target"), [(1, 0.1), (3, 0.2), (10, 0.5), (30, 0.95), (40, 0.3)])
def test_tat_reaches_its_target(depth: int, target: float) -> None:
    slope = tat_slope(depth, target)
    assert 0 < slope < 1
    assert _reached(depth, slope) == pytest.approx(target, abs=1e-9)


def test_tat_s_target_is_nine_tenths() -> None:
    assert tat_slope(30) == tat_slope(30, 0.9)


def test_a_shallow_net_keeps_its_relu() -> None:
    assert tat_slope(1, 1 / math.pi + 1e-6) == 0.0
    assert 0 < tat_slope(1, 1 / math.pi - 1e-6) < 0.01
    assert tat_slope(1, _reached(1, 0.0)) == 0.0
    assert tat_slope(5) == 0.0


@pytest.mark.parametrize(("depth", "target"), [(0, 0.9), (-1, 0.5), (5, 0.0), (5, 1.0), (5, 1.5), (5, -0.1)])
def test_tat_refuses(depth: int, target: float) -> None:
    with pytest.raises(ValueError, match=f"depth is {depth}, target {target}"):
        tat_slope(depth, target)


@pytest.mark.parametrize("name", ["tanh", "softplus", "silu", "erf", "sigmoid"])
@pytest.mark.parametrize(("depth", "zeta"), [(5, 1.5), (20, 1.5), (20, 3.0), (200, 1.2)])
def test_dks_keeps_length_mean_and_slopes(name: str, depth: int, zeta: float) -> None:
    shape, phi = dks(name, depth, zeta), curve(name)

    def value(x: np.ndarray) -> np.ndarray:
        return shape.gamma * (phi.value(shape.alpha * x + shape.beta) + shape.delta)

    def slope(x: np.ndarray) -> np.ndarray:
        return shape.gamma * shape.alpha * phi.slope(shape.alpha * x + shape.beta)

    h = 1e-5
    grown = [quadrature.mean(lambda x: value(x) ** 2, 1 + e) for e in (-h, h)]
    assert quadrature.mean(lambda x: value(x) ** 2) == pytest.approx(1.0, abs=1e-9)
    assert quadrature.mean(value) == pytest.approx(0.0, abs=1e-7)
    assert (grown[1] - grown[0]) / (2 * h) == pytest.approx(1.0, abs=1e-5)
    excess = quadrature.mean(lambda x: slope(x) ** 2) - 1
    assert excess == pytest.approx(zeta ** (1 / depth) - 1, rel=1e-5)


def test_dks_default_zeta_is_three_halves() -> None:
    assert dks("tanh", 7) == dks("tanh", 7, 1.5)


@pytest.mark.parametrize("name", ["relu", "identity"])
def test_dks_refuses_what_it_cannot_shape(name: str) -> None:
    with pytest.raises(ValueError, match=f"no shape of {name} for 10 layers"):
        dks(name, 10)
