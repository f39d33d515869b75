"""Signals and gradients as numbers: sums, factors and maps, against arrays with these moments."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unvanish.theory.program.signal import Pull, Signal


def test_a_signal_is_white_and_a_gradient_is_nothing_by_default() -> None:
    x, pull = Signal(), Pull()
    assert x.power.shape == () and x.q == 1.0
    assert (x.samples, x.positions, x.apart, x.mean, x.squares) == (0.0, 0.0, 0.0, 0.0, None)
    assert pull.log == -math.inf and pull.share.shape == () and float(pull.share) == 1.0
    assert (pull.alike, pull.winners, pull.centred, pull.part) == (0.0, 1, False, 1.0)


def test_cosines_and_powers_are_clipped() -> None:
    x = Signal(np.array([-1.0, 2.0]), 2.0, -3.0, 1.5, -2.0)
    assert x.power.tolist() == [0.0, 2.0] and x.q == 1.0
    assert (x.samples, x.positions, x.apart, x.mean) == (1.0, -1.0, 1.0, -1.0)
    inside = Signal(np.array(0.5), 0.9, -0.9, 0.3, 0.1)
    assert (inside.samples, inside.positions, inside.apart, inside.mean) == (0.9, -0.9, 0.3, 0.1)


def test_a_map_stays_only_with_its_shape() -> None:
    x = Signal(np.array([1.0, 3.0]), samples=0.5)
    assert x.fit((4, 7, 2)) is x
    flat = x.fit((4, 2, 7))
    assert flat.power.shape == () and flat.q == 2.0 and flat.samples == 0.5
    assert flat.flat() is flat


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_a_bias_adds_its_power_to_all_samples_and_positions_alike(scale: float) -> None:
    rng = np.random.default_rng(0)
    one = scale * (rng.normal(size=50) + 0.4)
    others = [rng.permutation(one) for _ in range(3)]
    bias = scale * (rng.normal(size=40) - 0.7)
    q = float(np.mean(one**2))
    cosines = [float(np.mean(one * o)) / q for o in others]
    x = Signal(np.array(q), *cosines, float(one.mean()) / math.sqrt(q))
    found = x.plus(float(np.mean(bias**2)), float(bias.mean()))
    total = one[:, None] + bias
    power = float(np.mean(total**2))
    expected = [float(np.mean(total * (o[:, None] + bias))) / power for o in others]
    assert found.q == pytest.approx(power)
    assert [found.samples, found.positions, found.apart] == pytest.approx(expected)
    assert found.mean == pytest.approx(float(total.mean()) / math.sqrt(power))


def test_no_bias_changes_nothing_and_a_centred_one_leaves_the_mean() -> None:
    x = Signal(np.array([0.01, 0.03]), samples=0.5, mean=0.5)
    assert x.plus(0.0, 0.3) is x
    found = x.plus(0.02)
    assert found.power == pytest.approx([0.03, 0.05])
    assert found.samples == pytest.approx(0.75) and found.mean == pytest.approx(0.5 * math.sqrt(0.5))


def test_a_factor_multiplies_the_power_and_ends_softmax_weights() -> None:
    x = Signal(np.array([1.0, 2.0]), samples=0.5, mean=0.3, squares=0.1).times(0.25)
    assert x.power.tolist() == [0.25, 0.5] and (x.samples, x.mean, x.squares) == (0.5, 0.3, None)


def test_a_gradient_times_a_factor() -> None:
    pull = Pull(1.0, alike=0.3, winners=2)
    assert pull.times(4.0).log == pytest.approx(1 + math.log(4)) and pull.times(4.0).alike == 0.3
    assert pull.times(0.0).log == -math.inf


def test_independent_gradients_add_their_squares_far_below_the_smallest_float() -> None:
    one, other = Pull(-5000.0, alike=0.2), Pull(-5000.0 + math.log(3), alike=0.6)
    for found in (one.plus(other), other.plus(one)):
        assert found.log == pytest.approx(-5000 + math.log(4), abs=1e-9)
        assert found.alike == pytest.approx((0.2 + 3 * 0.6) / 4)
    assert one.plus(Pull()) is one and Pull().plus(one) is one


def test_maps_of_gradients_add_by_position() -> None:
    left, right = Pull(0.0, np.array([1.0, 0.0])), Pull(math.log(3), np.array([0.0, 1.0]))
    assert left.plus(right).share == pytest.approx([0.25, 0.75])
    assert left.plus(Pull(0.0)).share.tolist() == [1.0, 0.0]
    assert Pull(0.0).plus(left).share.tolist() == [1.0, 0.0]


def test_a_gradient_by_position_sums_to_one() -> None:
    assert Pull(0.0, np.array([0.1, 0.3])).at((5, 6, 2)) == pytest.approx([0.25, 0.75])
    even = Pull(0.0, np.array([0.1, 0.3])).at((5, 6, 2, 4))
    assert even.shape == (2, 4) and even == pytest.approx(np.full((2, 4), 0.125))
    assert Pull(0.0, np.array([0.1, 0.3])).at((5, 6)).shape == ()
