"""Closed forms against the defining integrals and sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unvanish.theory import closed_forms, quadrature

PAIRS = np.random.default_rng(3).standard_normal((2, 1_000_000))


def _pair(c: float) -> tuple[np.ndarray, np.ndarray]:
    return PAIRS[0], c * PAIRS[0] + math.sqrt(1 - c**2) * PAIRS[1]


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("c", [-0.8, -0.2, 0.0, 0.5, 0.95])
def test_the_correlation_after_a_leaky_relu_is_that_of_samples(slope: float, c: float) -> None:
    u, v = (np.where(x > 0, x, slope * x) for x in _pair(c))
    expected = float((u * v).mean()) / ((1 + slope**2) / 2)
    assert closed_forms.leaky_correlation(c, slope) == pytest.approx(expected, abs=0.01)


def test_known_correlations() -> None:
    assert closed_forms.leaky_correlation(0.0) == pytest.approx(1 / math.pi)
    assert closed_forms.leaky_correlation(1.0) == closed_forms.leaky_correlation(1.5) == 1.0
    assert closed_forms.leaky_correlation(-1.0) == pytest.approx(0.0, abs=1e-12)
    assert closed_forms.leaky_correlation(-3.0) == closed_forms.leaky_correlation(-1.0)
    assert closed_forms.leaky_correlation(-1.0, 0.5) == pytest.approx(-2 * 0.5 / 1.25)
    for c in (-0.7, 0.0, 0.4):
        assert closed_forms.leaky_correlation(c, 1.0) == pytest.approx(c)  # linear
        assert closed_forms.leaky_correlation(c, -1.0) == pytest.approx(  # |z|: the even part
            2 / math.pi * (math.sqrt(1 - c**2) + c * math.asin(c))
        )


@pytest.mark.parametrize("slope", [0.0, 0.2, 0.5, 1.0])
def test_the_leaky_gain_keeps_the_length(slope: float) -> None:
    power = quadrature.mean(lambda x: np.where(x > 0, x, slope * x) ** 2)
    assert closed_forms.leaky_gain(slope) == pytest.approx(power**-0.5)
    assert closed_forms.leaky_gain() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("q", [0.2, 1.0, 6.0])
def test_erf_forms_are_integrals(q: float) -> None:
    def erf(x: np.ndarray) -> np.ndarray:
        return np.asarray(torch.erf(torch.from_numpy(np.array(x))).numpy())

    assert closed_forms.erf_power(q) == pytest.approx(quadrature.mean(lambda x: erf(x) ** 2, q), rel=1e-9)
    slope = quadrature.mean(lambda x: 4 / math.pi * np.exp(-2 * x**2), q)
    assert closed_forms.erf_slope(q) == pytest.approx(slope, rel=1e-9)
    for c in (-0.5, 0.0, 0.7):
        expected = quadrature.pair_mean(erf, q, c)
        assert closed_forms.erf_power(q, c) == pytest.approx(expected, rel=1e-8, abs=1e-12)
