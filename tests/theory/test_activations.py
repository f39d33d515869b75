"""Curves: values, slopes, kinks, names and settings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from unvanish.theory.activations import ALIASES, FUNCTIONS, NAMES, Curve, curve

Z = np.array([-2.3, -0.7, 0.4, 1.9, 7.0])


@pytest.mark.parametrize("name", [*NAMES, *FUNCTIONS])
def test_the_slope_is_the_difference_quotient(name: str) -> None:
    settings = {"min": -1.1, "max": 2.2} if name in ("clamp",) else {}
    settings |= {"clamp_max": {"max": 1.0}, "clamp_min": {"min": 1.0}, "pow": {"exponent": 3}}.get(name, {})
    phi = Curve(name, getattr(torch, name), settings) if settings else curve(name)
    z, h = np.array([0.3, 0.8, 1.7]), 1e-6
    expected = (phi.value(z + h) - phi.value(z - h)) / (2 * h)
    assert phi.slope(z) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert phi.value(z).dtype == phi.slope(z).dtype == np.float64


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tanh", np.tanh(Z)),
        ("sigmoid", 1 / (1 + np.exp(-Z))),
        ("relu", np.maximum(Z, 0)),
        ("relu6", np.clip(Z, 0, 6)),
        ("identity", Z),
        ("linear", Z),
        ("erf", np.array([math.erf(z) for z in Z])),
        ("silu", Z / (1 + np.exp(-Z))),
        ("exp", np.exp(Z)),
    ],
)
def test_values(name: str, expected: np.ndarray) -> None:
    assert curve(name).value(Z) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases(alias: str) -> None:
    assert curve(alias).name == ALIASES[alias]
    assert curve(alias.upper().replace("_", "-")) is not None


@pytest.mark.parametrize(
    ("name", "kinks"),
    [
        ("hardtanh", (-1.0, 1.0)),
        ("relu6", (6.0,)),
        ("hardsigmoid", (-3.0, 3.0)),
        ("hardswish", (-3.0, 3.0)),
        ("relu", ()),
        ("leaky_relu", ()),
        ("tanh", ()),
        ("gelu", ()),
        ("exp", ()),
    ],
)
def test_kinks(name: str, kinks: tuple[float, ...]) -> None:
    assert curve(name).kinks == pytest.approx(kinks, abs=1e-8)


@pytest.mark.parametrize(
    ("function", "kinks"),
    [
        (lambda x: (x - 0.3712).abs(), (0.3712,)),
        (lambda x: functional.relu(x - 19.2) + functional.relu(x + 18.777), (-18.777, 19.2)),
        (lambda x: 0.03 * functional.relu(x - 1.2345), (1.2345,)),
        (lambda x: 0.005 * functional.relu(x - 1.2345), ()),
        (lambda x: torch.tanh(20 * x), ()),  # steep, but smooth
        (lambda x: torch.tanh(300 * (x - 2)) / 300, ()),
        (lambda x: functional.relu(x) + functional.relu(x - 25), ()),
    ],
)
def test_kinks_of_a_callable(function: Callable[[Tensor], Tensor], kinks: tuple[float, ...]) -> None:
    assert curve(function).kinks == pytest.approx(kinks, abs=1e-8)


def test_steep_smooth_functions_are_not_searched_for_kinks() -> None:
    assert Curve("square", lambda x: (x - 0.5).abs()).kinks == ()
    assert Curve("composed", lambda x: (x - 0.5).abs()).kinks == ()
    assert Curve("clamp", torch.clamp, {"min": -1.5, "max": 0.5}).kinks == pytest.approx(
        (-1.5, 0.5), abs=1e-8
    )


def test_homogeneous_functions() -> None:
    for name in ("relu", "leaky_relu", "identity", "abs"):
        assert curve(name).homogeneous is True, name
    for name in ("tanh", "gelu", "hardtanh", "square", "softsign"):
        assert curve(name).homogeneous is False, name
    assert not curve(lambda x: x + 1e-6).homogeneous
    assert not curve(lambda x: x + 1e-6 * x**3).homogeneous


def test_the_slope_of_a_constant_is_0_and_gradients_may_be_off() -> None:
    constant = curve(lambda x: torch.full_like(x, 3.0).detach())
    assert constant.value(Z) == pytest.approx(np.full(5, 3.0))
    assert constant.slope(Z) == pytest.approx(np.zeros(5))
    with torch.no_grad():
        assert curve("square").slope(Z) == pytest.approx(2 * Z)


def test_a_module_is_copied_into_float64() -> None:
    module = nn.PReLU(init=0.25)
    phi = curve(module)
    assert phi.name == "prelu"
    assert phi.value(np.array([-2.0])) == pytest.approx([-0.5])
    assert module.weight.dtype == torch.float32
    with torch.no_grad():
        module.weight.fill_(0.9)
    assert phi.value(np.array([-2.0])) == pytest.approx([-0.5])


def test_settings() -> None:
    assert curve("leaky_relu", negative_slope=0.3).value(np.array([-2.0])) == pytest.approx([-0.6])
    assert curve("softplus", beta=2.0).value(np.array([0.0])) == pytest.approx([math.log(2) / 2])
    tanh = curve("gelu", approximate="tanh").value(np.array([1.0]))
    inner = math.sqrt(2 / math.pi) * 1.044715
    assert tanh == pytest.approx([0.5 * (1 + math.tanh(inner))])
    with pytest.raises(ValueError, match="gelu has no setting 'beta'"):
        curve("gelu", beta=1)
    with pytest.raises(ValueError, match="softplus has no setting 'approximate'"):
        curve("softplus", approximate="tanh")
    with pytest.raises(ValueError, match="leaky_relu has no setting 'input'"):
        curve("leaky_relu", input=1)
    with pytest.raises(ValueError, match="did you mean 'negative_slope'"):
        curve("leaky_relu", negative_slop=0.1)


def test_a_curve_stays_itself_and_a_callable_keeps_its_name() -> None:
    phi = curve("tanh")
    assert curve(phi) is phi
    assert curve("tanh") is phi
    assert curve(torch.sin).name == "sin"
    assert curve(nn.Softplus()).name == "softplus"
