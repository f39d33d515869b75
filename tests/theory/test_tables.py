"""Tables of means and overlaps against closed forms: erf, exp, square, |z|, ReLU, hardtanh."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unvanish.theory import closed_forms, quadrature
from unvanish.theory.activations import curve
from unvanish.theory.meanfield import field
from unvanish.theory.tables import MeansTable, table


def _beyond(x: float) -> float:
    """P(|z| > x) of a standard normal number."""
    return math.erfc(x / math.sqrt(2))


def _below(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _density(x: float) -> float:
    return math.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("q", [1e-9, 0.0123, 0.9871, 1.0, 1.37, 33.3])
def test_erf(q: float) -> None:
    read = table("erf").read
    assert float(read("power", q)) == pytest.approx(closed_forms.erf_power(q), rel=2e-6)
    assert float(read("slope", q)) == pytest.approx(closed_forms.erf_slope(q), rel=2e-6)
    assert float(read("fourth", q)) == pytest.approx(16 / math.pi**2 / math.sqrt(1 + 8 * q), rel=3e-6)
    assert float(read("average", q)) == pytest.approx(0.0, abs=1e-12)
    assert float(read("dead", q)) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("q", [0.031, 0.5123, 1.777])
def test_cosine(q: float) -> None:
    read = table("cos").read
    assert float(read("average", q)) == pytest.approx(math.exp(-q / 2), rel=1e-5)
    assert float(read("power", q)) == pytest.approx((1 + math.exp(-2 * q)) / 2, rel=1e-5)
    assert float(read("slope", q)) == pytest.approx((1 - math.exp(-2 * q)) / 2, rel=1e-5)
    fourth = (3 - 4 * math.exp(-2 * q) + math.exp(-8 * q)) / 8
    assert float(read("fourth", q)) == pytest.approx(fourth, rel=1e-4)


@pytest.mark.parametrize("q", [1e-40, 0.2, 1.0, 5.0, 1e40])
def test_a_homogeneous_function_scales(q: float) -> None:
    read = table("leaky_relu", (("negative_slope", 0.5),)).read
    assert float(read("power", q)) == pytest.approx(0.625 * q)
    assert float(read("slope", q)) == pytest.approx(0.625)
    assert float(read("fourth", q)) == pytest.approx(17 / 32)
    assert float(read("average", q)) == pytest.approx(0.5 * math.sqrt(q / (2 * math.pi)))
    assert float(read("dead", q)) == 0.0
    assert float(table("relu").read("dead", q)) == pytest.approx(0.5)
    assert float(table("relu").read("power", 0.0)) == pytest.approx(0.0, abs=1e-290)


@pytest.mark.parametrize("q", [0.2, 1.0, 3.1])
def test_the_shares_of_flat_and_zero_slopes(q: float) -> None:
    hard = table("hardtanh", peak=1.0)
    share = _beyond(1 / math.sqrt(q))
    for name in ("dead", "saturated"):
        assert float(hard.read(name, q)) == pytest.approx(share, rel=1e-4), name
    smooth = table("tanh", peak=1.0)
    edge = math.atanh(math.sqrt(0.95))  # slope 0.05
    assert float(smooth.read("saturated", q)) == pytest.approx(
        _beyond(edge / math.sqrt(q)), rel=0.05, abs=1e-3
    )
    assert float(table("tanh").read("saturated", q)) == 0.0
    steep = table("tanh", peak=4.0)
    edge = math.atanh(math.sqrt(0.8))  # slope 0.2
    assert float(steep.read("saturated", q)) == pytest.approx(
        _beyond(edge / math.sqrt(q)), rel=0.05, abs=1e-3
    )


def test_lengths_beyond_the_grid_get_its_end() -> None:
    read = table("tanh").read
    assert float(read("power", math.exp(40))) == float(read("power", math.exp(60)))
    assert float(read("power", math.exp(40))) == pytest.approx(1.0, abs=1e-3)
    assert float(read("slope", 0.0)) == float(read("slope", math.exp(-40))) == pytest.approx(1.0)
    assert float(read("power", math.exp(-29.0))) == pytest.approx(math.exp(-29.0), rel=1e-5)
    assert float(read("power", math.exp(-29.75))) == pytest.approx(math.exp(-29.75), rel=1e-5)
    assert float(read("slope", math.exp(25))) < 1e-3


def test_many_lengths_at_once() -> None:
    q = np.array([[0.1, 1.0], [2.0, 7.0]])
    found = table("erf").read("power", q)
    assert found.shape == q.shape
    assert found[1, 0] == pytest.approx(closed_forms.erf_power(2.0), rel=2e-6)


def test_steep_functions_stay_finite() -> None:
    read = table("exp").read
    assert float(read("power", 0.11)) == pytest.approx(math.exp(0.22), rel=1e-6)
    assert float(read("average", 0.11)) == pytest.approx(math.exp(0.055), rel=1e-6)
    for name, most in (("power", 1e120), ("average", 1e60), ("fourth", 1e240)):
        assert 1e3 < float(read(name, math.exp(20))) <= most
    assert float(table("sqrt").read("power", 1.7)) == pytest.approx(math.sqrt(1.7 / (2 * math.pi)), rel=1e-5)


@pytest.mark.parametrize("c", [-1.0, -0.55, 0.0, 0.3, 0.7, 1.0])
def test_overlaps_with_a_closed_form(c: float) -> None:
    for q in (0.1, 1.0):
        expected = closed_forms.erf_power(q, c) / closed_forms.erf_power(q)
        assert table("erf").overlap(q, c) == pytest.approx(expected, abs=1e-5)
        assert table("exp").overlap(q, c) == pytest.approx(math.exp(q * (c - 1)), abs=2e-3 * q)
        assert table("square").overlap(q, c) == pytest.approx((1 + 2 * c**2) / 3)
        assert table("square").slope_overlap(q, c) == pytest.approx(c)
    half = math.sqrt(1 - c**2)
    even = 2 / math.pi * (half + c * math.asin(c))
    assert table("abs").overlap(3.0, c) == pytest.approx(even, abs=1e-3)
    assert table("abs").slope_overlap(3.0, c) == pytest.approx(2 / math.pi * math.asin(c), abs=0.02)
    assert table("relu").overlap(2.0, c) == pytest.approx(closed_forms.leaky_correlation(c), abs=1e-4)
    assert table("relu").slope_overlap(2.0, c) == pytest.approx(1 - math.acos(c) / math.pi, abs=0.02)


@pytest.mark.parametrize("name", ["tanh", "gelu", "hardtanh"])
@pytest.mark.parametrize("q", [0.5, 4.0])
def test_overlaps_are_the_double_integral(name: str, q: float) -> None:
    phi, read = curve(name), table(name)
    value = quadrature.pair_mean(phi.value, q, 0.6) / field(name).power(q)
    slope = quadrature.pair_mean(phi.slope, q, 0.6) / field(name).slope(q)
    assert read.overlap(q, 0.6) == pytest.approx(value, rel=5e-4)
    assert read.slope_overlap(q, 0.6) == pytest.approx(slope, rel=0.02 if name == "hardtanh" else 3e-3)


def test_the_overlap_of_an_odd_function_is_odd_and_of_an_even_one_even() -> None:
    for q in (1.0, 50.0, 1e4):  # steep: much of the series lies past its end
        assert table("tanh").overlap(q, -1.0) == pytest.approx(-1.0)
        assert table("tanh").slope_overlap(q, -1.0) == pytest.approx(1.0)
    assert table("abs").overlap(1.0, -1.0) == pytest.approx(1.0)
    assert table("abs").slope_overlap(1.0, -1.0) == pytest.approx(-1.0)


def test_overlaps_at_the_ends() -> None:
    read = table("tanh")
    for q in (0.0, -1.0, math.inf, math.nan):
        assert read.overlap(q, 0.3) == read.slope_overlap(q, 0.3) == 1.0
    assert read.overlap(2.0, 1.7) == read.overlap(2.0, 1.0) == pytest.approx(1.0)
    assert read.overlap(2.0, -1.7) == read.overlap(2.0, -1.0)
    constant = MeansTable(curve(lambda x: 0 * x + 2.0))
    assert constant.overlap(1.0, -0.8) == pytest.approx(1.0)
    assert constant.slope_overlap(1.0, 0.5) == 0.0


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.7, 0.5), (-1.2, 2.0)])
def test_shifted_means_of_relu(mean: float, deviation: float) -> None:
    found, m, s = table("relu").shift(mean, deviation), mean, deviation
    share, density = _below(m / s), _density(m / s)
    assert found.average == pytest.approx(m * share + s * density, rel=5e-3)
    assert found.power == pytest.approx((m**2 + s**2) * share + m * s * density, rel=5e-3)
    assert found.slope == pytest.approx(share, rel=0.02)
    assert found.fourth == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize("c", [-1.0, -0.4, 0.0, 0.6, 1.0])
def test_shifted_means_and_overlaps_of_smooth_functions(c: float) -> None:
    m, s = 0.8, 0.6
    square, grown = table("square").shift(m, s), table("exp").shift(m, s)
    assert square.power == pytest.approx(m**4 + 6 * m**2 * s**2 + 3 * s**4)
    assert square.average == pytest.approx(m**2 + s**2)
    assert square.slope == pytest.approx(4 * (m**2 + s**2))
    joint = (m**2 + s**2) ** 2 + 4 * m**2 * s**2 * c + 2 * s**4 * c**2
    assert square.overlap(c) == pytest.approx(joint / square.power)
    assert square.slope_overlap(c) == pytest.approx((m**2 + s**2 * c) / (m**2 + s**2))
    assert grown.average == pytest.approx(math.exp(m + s**2 / 2))
    assert grown.power == grown.slope == pytest.approx(math.exp(2 * m + 2 * s**2))
    assert grown.fourth == pytest.approx(math.exp(4 * m + 8 * s**2))
    assert grown.overlap(c) == grown.slope_overlap(c) == pytest.approx(math.exp(s**2 * (c - 1)))


def test_shifted_overlaps_at_the_ends() -> None:
    found = table("tanh").shift(0.3, 3.0)
    for read in (found.overlap, found.slope_overlap):
        assert read(4.0) == read(1.0) == pytest.approx(1.0)
        assert read(-4.0) == read(-1.0) < 1.0


def test_shifts_are_read_to_four_digits_and_kept() -> None:
    read = table("tanh")
    assert read.shift(0.30001, 1.00001) is read.shift(0.3, 1.0)
    assert read.shift(0.3004, 1.0) is not read.shift(0.3, 1.0)
    assert table("tanh") is read


def test_an_unknown_activation() -> None:
    with pytest.raises(ValueError, match="no activation 'rellu'"):
        table("rellu")
