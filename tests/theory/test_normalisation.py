"""Gains of normalised layers against closed forms of ReLU, erf, exp and a shifted line."""

from __future__ import annotations

import math

import pytest
import torch

from unvanish.theory import closed_forms
from unvanish.theory.normalisation import batch_norm_gain, layer_norm_gain


def test_relu() -> None:
    known = 0.5 * math.log(0.5 / (0.5 - 1 / (2 * math.pi)))
    assert batch_norm_gain("relu") == pytest.approx(known)
    assert layer_norm_gain("relu", before=False) == pytest.approx(known)
    assert layer_norm_gain("relu") == pytest.approx(0.0, abs=1e-9)


def test_exp() -> None:
    spread = math.exp(2) - math.exp(1)
    assert batch_norm_gain(torch.exp) == pytest.approx(0.5 * (2 - math.log(spread)))
    assert layer_norm_gain("exp", before=False) == pytest.approx(0.5 * (2 - math.log(spread)))
    assert layer_norm_gain("exp", before=True) == pytest.approx(0.0, abs=1e-9)


def test_an_odd_function_has_no_mean_to_remove() -> None:
    known = 0.5 * math.log(closed_forms.erf_slope(1.0) / closed_forms.erf_power(1.0))
    for gain in (batch_norm_gain("erf"), layer_norm_gain("erf"), layer_norm_gain("erf", before=False)):
        assert gain == pytest.approx(known)


def test_a_shifted_line_and_settings() -> None:
    assert batch_norm_gain(lambda x: 2 * x + 3) == pytest.approx(0.0, abs=1e-9)
    assert layer_norm_gain(lambda x: 2 * x + 3) == pytest.approx(0.5 * math.log(4 / 13))
    a = 0.3
    power, average = (1 + a**2) / 2, (1 - a) / math.sqrt(2 * math.pi)
    known = 0.5 * math.log(power / (power - average**2))
    assert batch_norm_gain("leaky_relu", negative_slope=a) == pytest.approx(known)
    assert layer_norm_gain("leaky_relu", before=False, negative_slope=a) == pytest.approx(known)
