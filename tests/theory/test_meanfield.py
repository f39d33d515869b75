"""Gains, critical points and maps against published numbers, closed forms, Monte Carlo and a wide network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unvanish.theory import closed_forms, quadrature
from unvanish.theory.activations import NAMES, curve
from unvanish.theory.initialisers import start
from unvanish.theory.meanfield import Critical, field, gains
from unvanish.theory.shaping import dks, tat_slope
from unvanish.theory.tables import table

GAINS = {  # forward, with the mean removed, backward, at q = 1
    "relu": (1.4142, 1.7129, 1.4142),
    "tanh": (1.5925, 1.5925, 1.4674),
    "sigmoid": (1.8462, 4.8013, 4.7226),
    "gelu": (1.5335, 1.7009, 1.4811),
    "silu": (1.6765, 1.7872, 1.6233),
    "selu": (1.0000, 1.0000, 0.9660),
    "elu": (1.2452, 1.2708, 1.2234),
    "mish": (1.4868, 1.5920, 1.4448),
    "softplus": (1.0419, 1.9191, 1.8462),
    "softsign": (2.3375, 2.3375, 2.0958),
    "hardtanh": (1.3920, 1.3920, math.erf(0.5**0.5) ** -0.5),  # the share of units within [-1, 1]
    "hardswish": (1.7367, 1.8139, 1.6701),
}
CRITICAL = [
    ("tanh", 0.05, 1.0458, 0.0113),
    ("tanh", 0.25, 1.1807, 0.0901),
    ("tanh", 1.0, 1.4674, 0.3885),
    ("gelu", 8.0, 1.3988, 0.5333),
    ("silu", 16.0, 1.4082, 0.7708),
    ("selu", 1.0, 0.9660, 0.2584),
]


@pytest.mark.parametrize("name", GAINS)
def test_the_gains_of_every_activation(name: str) -> None:
    found = gains(name)
    for kind, wanted in zip(("forward", "centred", "backward"), GAINS[name], strict=True):
        assert found[kind] == pytest.approx(wanted, abs=6e-5), kind


@pytest.mark.parametrize(("name", "q", "sw", "sb"), CRITICAL)
def test_critical_points(name: str, q: float, sw: float, sb: float) -> None:
    point = field(name).critical(q)
    assert point is not None
    assert (point.sw, point.sb) == pytest.approx((sw, sb), abs=6e-5)
    assert field(name).length(q, point.sw, point.sb) == pytest.approx(q, rel=1e-9)
    assert field(name).chi(q, point.sw) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(("name", "stable", "unstable"), [("gelu", 8.0, 2.0), ("silu", 16.0, 8.0)])
def test_stability_is_said(name: str, stable: float, unstable: float) -> None:
    for q, expected in ((stable, True), (unstable, False)):
        point = field(name).critical(q)
        assert point is None or point.stable is expected


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu", "sigmoid"])
def test_stability_is_the_slope_of_the_length_map(name: str) -> None:
    maps, h = field(name), 1e-5
    slope = (maps.length(1 + h, 1.3, 0.2) - maps.length(1 - h, 1.3, 0.2)) / (2 * h)
    assert maps.stability(1.0, 1.3) == pytest.approx(slope, rel=1e-5)


@given(st.floats(0.01, 50), st.floats(-1, 1))
@settings(max_examples=25, deadline=None)
def test_erf_has_a_closed_form(q: float, c: float) -> None:
    maps = field("erf")
    assert maps.power(q) == pytest.approx(closed_forms.erf_power(q), rel=1e-8)
    assert maps.slope(q) == pytest.approx(closed_forms.erf_slope(q), rel=1e-8)
    expected = closed_forms.erf_power(q, c) / closed_forms.erf_power(q)
    assert table("erf").overlap(q, c) == pytest.approx(expected, abs=5e-3)


@given(st.floats(-1, 1), st.floats(0, 0.9))
@settings(max_examples=25, deadline=None)
def test_leaky_relu_has_a_closed_form(c: float, slope: float) -> None:
    read = table("leaky_relu", (("negative_slope", slope),))
    assert read.overlap(1.0, c) == pytest.approx(closed_forms.leaky_correlation(c, slope), abs=2e-4)
    assert gains("leaky_relu", negative_slope=slope)["backward"] == pytest.approx(
        closed_forms.leaky_gain(slope)
    )


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"linear"}))
@pytest.mark.parametrize("q", [0.1, 1.0, 9.0])
def test_means_agree_with_sampling(name: str, q: float) -> None:
    z = math.sqrt(q) * np.random.default_rng(0).standard_normal(400_000)
    phi = curve(name)
    for read, values in (
        (field(name).power(q), phi.value(z) ** 2),
        (field(name).slope(q), phi.slope(z) ** 2),
    ):
        assert read == pytest.approx(values.mean(), abs=5 * values.std() / 600 + 1e-9)


@given(st.floats(-20, 4), st.sampled_from(["tanh", "gelu", "relu", "softplus", "hardtanh"]))
@settings(max_examples=40, deadline=None)
def test_the_table_is_the_quadrature(log: float, name: str) -> None:
    q = math.exp(log)
    for column, exact in (("power", field(name).power(q)), ("slope", field(name).slope(q))):
        assert float(table(name).read(column, q)) == pytest.approx(exact, rel=2e-4)


def test_any_callable_is_an_activation() -> None:
    assert gains(torch.sin)["backward"] == pytest.approx(math.sqrt(2 / (1 + math.exp(-2))))
    assert gains(nn.PReLU(init=0.25))["backward"] == pytest.approx(closed_forms.leaky_gain(0.25))
    with pytest.raises(ValueError, match="not elementwise"):
        gains(lambda x: x.sum())
    with pytest.raises(ValueError, match="did you mean 'tanh'"):
        gains("tahn")


@pytest.mark.parametrize(("name", "sw", "sb"), [("tanh", 1.5, 0.2), ("relu", 1.2, 0.0), ("gelu", 1.6, 0.1)])
def test_a_wide_network_does_what_the_maps_say(name: str, sw: float, sb: float) -> None:
    torch.manual_seed(0)
    width, maps = 2000, field(name)
    h, q = torch.randn(2, width, dtype=torch.float64), sw**2 + sb**2
    for _ in range(4):
        z = h @ (sw / width**0.5 * torch.randn(width, width, dtype=torch.float64)) + sb * torch.randn(width)
        assert float(z.square().mean()) == pytest.approx(q, rel=0.12)
        h = torch.from_numpy(maps.phi.value(z.numpy()))
        q = maps.length(q, sw, sb)


def test_the_depth_scale_is_infinite_at_criticality_only() -> None:
    point = field("tanh").critical(0.25)
    assert point is not None
    assert field("tanh").depth_scale(point.sw, point.sb) > 1e5
    assert field("tanh").depth_scale(0.577, 0.07) < 2
    assert field("relu").depth_scale(math.sqrt(2)) == math.inf


def test_finite_width_disperses() -> None:
    assert field("relu").kappa(1.0) == pytest.approx(5.0)
    assert field("identity").kappa(1.0) == pytest.approx(2.0)
    assert field("relu").log_chi(1.0, math.sqrt(2), 100) == pytest.approx(-0.025)


@pytest.mark.parametrize(("depth", "slope"), [(20, 0.181), (50, 0.4305), (100, 0.570), (200, 0.680)])
def test_tat_s_slopes(depth: int, slope: float) -> None:
    assert tat_slope(depth) == pytest.approx(slope, abs=6e-4)
    c = 0.0
    for _ in range(depth):
        c = closed_forms.leaky_correlation(c, tat_slope(depth))
    assert c == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("name", ["tanh", "softplus", "gelu", "silu"])
@pytest.mark.parametrize("depth", [10, 50])
def test_dks_keeps_its_four_promises(name: str, depth: int) -> None:
    shape, phi = dks(name, depth), curve(name)

    def value(z: np.ndarray) -> np.ndarray:
        return shape.gamma * (phi.value(shape.alpha * z + shape.beta) + shape.delta)

    def slope(z: np.ndarray) -> np.ndarray:
        return shape.gamma * shape.alpha * phi.slope(shape.alpha * z + shape.beta)

    assert quadrature.mean(lambda z: value(z) ** 2) == pytest.approx(1.0)
    assert quadrature.mean(value) == pytest.approx(0.0, abs=1e-7)
    assert quadrature.mean(lambda z: value(z) * slope(z) * z) == pytest.approx(1.0, abs=1e-6)
    assert quadrature.mean(lambda z: slope(z) ** 2) == pytest.approx(1.5 ** (1 / depth), rel=1e-6)


def test_a_start_holds_the_length_it_states() -> None:
    for name in ("tanh", "relu", "gelu", "silu", "selu", "hardtanh", "sigmoid"):
        for depth in (10, 500):
            point = start(name, depth)
            if point.critical:
                assert field(name).length(point.q, point.sw, point.sb) == pytest.approx(point.q, rel=1e-6)
            assert field(name).chi(point.q, point.sw) == pytest.approx(1.0, rel=1e-6)


def test_a_critical_point_is_stable_up_to_a_slope_of_1() -> None:
    assert Critical(1.0, 0.0, 1.0, 1.0).stable
    assert Critical(1.0, 0.0, 1.0, 1.0 + 5e-7).stable
    assert not Critical(1.0, 0.0, 1.0, 1.0 + 2e-6).stable
    assert Critical(1.0, 0.0, 1.0, -3.0).stable


@pytest.mark.parametrize("q", [0.2, 1.0, 3.0])
def test_maps_of_exp_and_square_have_closed_forms(q: float) -> None:
    grown, square = field("exp"), field("square")
    assert grown.power(q) == grown.slope(q) == pytest.approx(math.exp(2 * q))
    assert grown.average(q) == pytest.approx(math.exp(q / 2))
    assert grown.length(q, 0.5, 2.0) == pytest.approx(0.25 * math.exp(2 * q) + 4)
    assert grown.length(q, 0.5) == pytest.approx(0.25 * math.exp(2 * q))
    assert grown.stability(q, 0.5) == pytest.approx(0.5 * math.exp(2 * q))
    assert grown.kappa(q) == pytest.approx(3 * math.exp(8 * q - 4 * q) - 1)
    assert square.chi(q, 1.5) == pytest.approx(9 * q)
    assert square.kappa(q) == pytest.approx(8.0)
    assert square.log_chi(q, 0.5) == pytest.approx(math.log(q))
    assert square.log_chi(q, 0.5, 20) == pytest.approx(math.log(q) - 0.2)
    for c in (-0.5, 0.0, 0.8, 1.0):
        found = grown.correlation(c, q, 0.5, 0.3)
        expected = (0.25 * math.exp(q * (1 + c)) + 0.09) / (0.25 * math.exp(2 * q) + 0.09)
        assert found == pytest.approx(expected)
        assert grown.correlation(c, q, 0.5) == pytest.approx(math.exp(q * (c - 1)))


@pytest.mark.parametrize(("sw", "sb"), [(0.7, 0.4), (1.5, 0.0), (1.02, 0.05), (2.5, 1.0)])
@pytest.mark.parametrize("begin", [0.01, 1.0, 30.0])
def test_the_fixed_point_of_erf(sw: float, sb: float, begin: float) -> None:
    q = begin
    for _ in range(20_000):
        q = sw**2 * closed_forms.erf_power(q) + sb**2
    assert field("erf").fixed_point(sw, sb, begin) == pytest.approx(q, rel=1e-6)


def test_lengths_that_fade_diverge_or_stay() -> None:
    assert field("erf").fixed_point(0.5) == 0.0
    assert field("relu").fixed_point(2.0) == math.inf
    assert field("relu").fixed_point(1.0) == 0.0
    assert field("relu").fixed_point(math.sqrt(2), start=3.7) == pytest.approx(3.7)
    assert field("relu").fixed_point(math.sqrt(2)) == pytest.approx(1.0)
    assert field("relu").fixed_point(1.0, 0.6) == pytest.approx(0.72)
    assert field("identity").fixed_point(0.9, 1.0) == pytest.approx(1 / 0.19)
    assert field("identity").fixed_point(0.0, 1e-5) == pytest.approx(1e-10)  # short, but not 0
    assert field("identity").fixed_point(0.0, 1e5) == pytest.approx(1e10)


def test_depth_scales() -> None:
    assert field("relu").depth_scale(1.0) == pytest.approx(1 / math.log(2))
    assert field("relu").depth_scale(2.0) == pytest.approx(1 / math.log(2))
    assert field("identity").depth_scale(0.5, 1.0) == pytest.approx(1 / math.log(4))
    assert field("erf").depth_scale(0.5) == pytest.approx(1 / -math.log(1 / math.pi), rel=1e-6)
    q = 1.0
    for _ in range(2000):
        q = 4 * closed_forms.erf_power(q) + 0.25
    expected = 1 / abs(math.log(4 * closed_forms.erf_slope(q)))
    assert field("erf").depth_scale(2.0, 0.5) == pytest.approx(expected)


def test_correlation_scales() -> None:
    assert field("erf").correlation_scale(0.5) == 0.0  # the length fades
    assert field("relu").correlation_scale(2.0) == 0.0  # and diverges
    assert field("relu").correlation_scale(1.0, 0.5) == pytest.approx(1 / math.log(2))
    assert field("identity").correlation_scale(0.8, 0.5) == pytest.approx(-1 / math.log(0.64))
    sw, sb, q, c = 2.5, 0.4, 1.0, 0.5
    for _ in range(2000):
        q = sw**2 * closed_forms.erf_power(q) + sb**2
    for _ in range(2000):
        c = (sw**2 * closed_forms.erf_power(q, c) + sb**2) / q
    h = 1e-6
    gain = sw**2 * (closed_forms.erf_power(q, c + h) - closed_forms.erf_power(q, c - h)) / (2 * h * q)
    assert gain < 1 < sw**2 * closed_forms.erf_slope(q)  # chaos
    assert field("erf").correlation_scale(sw, sb) == pytest.approx(-1 / math.log(gain), rel=1e-3)
    assert field("relu").correlation_scale(math.sqrt(2)) == math.inf


def test_critical_points_of_erf_and_where_there_is_none() -> None:
    for q in (0.1, 2.0):
        point = field("erf").critical(q)
        assert point is not None
        sw = closed_forms.erf_slope(q) ** -0.5
        assert (point.q, point.sw) == (q, pytest.approx(sw))
        assert point.sb == pytest.approx(math.sqrt(q - sw**2 * closed_forms.erf_power(q)))
        h = 1e-5
        slope = (closed_forms.erf_power(q + h) - closed_forms.erf_power(q - h)) / (2 * h)
        assert point.stability == pytest.approx(sw**2 * slope, rel=1e-6)
    default = field("erf").critical()
    assert default is not None
    assert default.q == 1.0
    assert field("exp").critical(0.5) is None  # unit gain keeps a length of 1
    relu = field("relu").critical(2.0)
    assert relu is not None
    assert relu.sb == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("q", [0.5, 2.0])
def test_gains_of_exp_at_a_length(q: float) -> None:
    found = gains(torch.exp, q)
    assert found["forward"] == found["backward"] == pytest.approx(math.exp(-q))
    assert found["centred"] == pytest.approx((math.exp(2 * q) - math.exp(q)) ** -0.5)
