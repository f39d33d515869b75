"""The rules by which one YAML has several sizes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unvanish.lab.models.scales import ScaleFactors

WIDTHS = st.sampled_from([0.25, 0.5, 0.75, 1.0, 1.5, 2.0])


@settings(deadline=None)
@given(st.integers(1, 4096), WIDTHS, st.sampled_from([256, 512, 1024, math.inf]))
def test_channels_are_the_next_multiple_of_eight(c, width, most):
    scale = ScaleFactors("n", 1.0, width, most)
    found = scale.channels(c)
    if width == 1 and most == math.inf:
        assert found == c
        return
    exact = min(c, most) * width
    assert found % 8 == 0
    assert exact <= found < exact + 8


@settings(deadline=None)
@given(st.integers(1, 64), st.floats(0.1, 2.0))
def test_repeats_stay_at_least_one_and_one_stays_one(n, depth):
    found = ScaleFactors("n", depth).repeats(n)
    assert found == (1 if n == 1 else max(round(n * depth), 1))
    assert found >= 1


@settings(deadline=None)
@given(st.integers(1, 2048), st.integers(1, 2048), WIDTHS)
def test_wider_stays_wider(a, b, width):
    scale = ScaleFactors("n", 1.0, width, 1024)
    assert (scale.channels(a) <= scale.channels(b)) or a > b


@pytest.mark.parametrize(
    ("scale", "channels"),
    [
        (ScaleFactors("n", 0.5, 0.25, 1024), [16, 32, 64, 128, 256]),
        (ScaleFactors("s", 0.5, 0.5, 1024), [32, 64, 128, 256, 512]),
        (ScaleFactors("m", 0.5, 1.0, 512), [64, 128, 256, 512, 512]),
        (ScaleFactors("x", 1.0, 1.5, 512), [96, 192, 384, 768, 768]),
    ],
)
def test_the_published_widths(scale, channels):
    assert [scale.channels(c) for c in (64, 128, 256, 512, 1024)] == channels
