"""Starts: critical where a stable point exists, of unit backward gain elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

from unvanish.theory import closed_forms, quadrature
from unvanish.theory.activations import curve
from unvanish.theory.initialisers import start


@pytest.mark.parametrize(("depth", "q"), [(1, 0.25), (100, 0.25), (101, 0.05), (1000, 0.05)])
def test_a_bounded_function_starts_short_and_shorter_if_deep(depth: int, q: float) -> None:
    found = start("erf", depth)
    assert found.critical is True
    assert found.q == q
    sw = closed_forms.erf_slope(q) ** -0.5
    assert found.sw == pytest.approx(sw)
    assert found.sb == pytest.approx(math.sqrt(q - sw**2 * closed_forms.erf_power(q)))
    assert found.power == pytest.approx(closed_forms.erf_power(q))
    assert start(torch.erf, depth).sw == pytest.approx(sw)


def test_the_default_depth_is_ten_layers() -> None:
    assert start("tanh") == start("tanh", 10)
    assert start("tanh").q == start(torch.tanh).q == 0.25


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_a_leaky_relu_needs_no_bias(slope: float) -> None:
    found = start("leaky_relu", 50, negative_slope=slope)
    assert found.sw == pytest.approx(closed_forms.leaky_gain(slope))
    assert (found.sb, found.q, found.critical) == (0.0, 1.0, True)
    assert found.power == pytest.approx((1 + slope**2) / 2)


def test_no_name_is_a_linear_layer() -> None:
    found = start("")
    assert (found.sw, found.power) == pytest.approx((1.0, 1.0))
    assert found == start("identity")


@pytest.mark.parametrize(("name", "q"), [("gelu", 4.0), ("silu", 16.0), ("selu", 0.25)])
def test_the_shortest_stable_length_is_used(name: str, q: float) -> None:
    found, phi, h = start(name), curve(name), 1e-4
    assert (found.q, found.critical) == (q, True)

    def after(length: float) -> float:
        return found.sw**2 * quadrature.mean(lambda x: phi.value(x) ** 2, length) + found.sb**2

    assert after(q) == pytest.approx(q)
    assert (after(q + h) - after(q - h)) / (2 * h) < 1


@pytest.mark.parametrize("name", ["square", "exp"])
def test_without_a_stable_point_the_gradient_is_kept_at_length_1(name: str) -> None:
    slope, power = {"square": (4.0, 3.0), "exp": (math.exp(2), math.exp(2))}[name]
    for depth in (10, 500):
        found = start(name, depth)
        assert (found.q, found.sb, found.critical) == (1.0, 0.0, False)
        assert found.sw == pytest.approx(slope**-0.5)
        assert found.power == pytest.approx(power)
