"""Gaussian means against moments, tail probabilities and Isserlis' theorem."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unvanish.theory import quadrature


def _below(x: float) -> float:
    """P(z < x) of a standard normal number."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize(("panels", "order"), [(400, 8), (80, 8), (100, 5)])
def test_nodes_have_the_moments_of_a_normal_number(panels: int, order: int) -> None:
    z, w = quadrature.nodes(panels, order)
    assert z.shape == w.shape == (panels * order,)
    assert np.all(np.diff(z) > 0)
    for power, moment in ((0, 1.0), (1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0), (6, 15.0), (8, 105.0)):
        assert float(w @ z**power) == pytest.approx(moment, rel=1e-9, abs=1e-12)


def test_nodes_are_400_panels_of_8_up_to_12_and_read_only() -> None:
    z, w = quadrature.nodes()
    assert len(z) == 3200
    assert 11.99 < z[-1] < 12.0
    assert z[0] == pytest.approx(-z[-1])
    with pytest.raises(ValueError, match="read-only"):
        z[0] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        w[0] = 0.0


@pytest.mark.parametrize("kink", [-2.6177, -0.4113, 0.0, 0.7312, 3.3333])
def test_a_step_at_an_edge_is_exact(kink: float) -> None:
    z, w = quadrature.nodes_with_edges([kink])
    assert float(w @ (z < kink)) == pytest.approx(_below(kink), rel=1e-11)
    assert float(w.sum()) == pytest.approx(1.0, rel=1e-12)
    if kink:
        assert len(z) == 3208


def test_edges_share_panels_with_the_given_number_of_nodes() -> None:
    z, w = quadrature.nodes_with_edges([0.123, -1.01, 20.0], panels=50, order=6)
    assert len(z) == len(w) == 52 * 6
    assert float(w @ z**2) == pytest.approx(1.0, rel=1e-9)


def test_an_edge_out_of_reach_changes_nothing() -> None:
    for kink in (12.0, -12.0, 15.0, -40.0):
        assert np.array_equal(quadrature.nodes_with_edges([kink])[0], quadrature.nodes()[0])
    assert np.array_equal(quadrature.nodes_with_edges([13.0], 30, 4)[0], quadrature.nodes(30, 4)[0])
    assert len(quadrature.nodes_with_edges([11.99])[0]) == 3208


@pytest.mark.parametrize("variance", [0.04, 1.0, 7.0])
@pytest.mark.parametrize("kink", [-0.31, 0.87])
def test_a_mean_of_a_step(variance: float, kink: float) -> None:
    found = quadrature.mean(lambda x: (x < kink).astype(np.float64), variance, [kink])
    assert found == pytest.approx(_below(kink / math.sqrt(variance)), rel=1e-10)


def test_a_mean_scales_with_the_variance() -> None:
    assert quadrature.mean(lambda x: x**2) == pytest.approx(1.0)
    assert quadrature.mean(lambda x: x**2, 2.5) == pytest.approx(2.5)
    assert quadrature.mean(lambda x: np.exp(0.3 * x), 2.0) == pytest.approx(math.exp(0.09))
    assert quadrature.mean(lambda x: np.maximum(x, 0), 4.0) == pytest.approx(2 / math.sqrt(2 * math.pi))


def test_a_mean_at_variance_0_is_the_value_at_0() -> None:
    assert quadrature.mean(lambda x: np.cos(x) + 2, 0.0, [1.0]) == pytest.approx(3.0)


@pytest.mark.parametrize("variance", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("c", [-1.0, -0.6, 0.0, 0.35, 0.9, 1.0])
def test_pair_means(variance: float, c: float) -> None:
    q = variance
    assert quadrature.pair_mean(lambda x: x, q, c) == pytest.approx(q * c, abs=1e-10)
    assert quadrature.pair_mean(lambda x: x**2, q, c) == pytest.approx(q**2 * (1 + 2 * c**2), rel=1e-10)
    assert quadrature.pair_mean(np.exp, q, c) == pytest.approx(math.exp(q * (1 + c)), rel=1e-10)


def test_a_correlation_above_1_is_1() -> None:
    assert quadrature.pair_mean(lambda x: x + 1, 2.0, 1.0 + 1e-12) == pytest.approx(3.0)
