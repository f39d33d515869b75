"""Normalisations, against projections of Gaussian vectors and the closed mean of an inverse variance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from unvanish.theory.program.norms import NORMS
from unvanish.theory.program.signal import Pull, Signal
from unvanish.theory.program.steps import Step

Shape = tuple[int, ...]


def _run(kind: str, shape: Shape, x: Signal, batch: int = 1, **facts: Any) -> tuple[Signal, Any]:
    (made,), back = NORMS[kind](Step(kind, "", (0,), (1,), (shape,), (shape,), facts), [x], batch)
    return made, back


def _gain(back: Any, **pull: Any) -> float:
    return math.exp(back([Pull(0.0, winners=4, **pull)])[0].log)


def test_a_layer_norm_removes_the_mean_and_the_length() -> None:
    x = Signal(np.array(0.2), 0.5, 0.4, 0.3, 0.5)
    made, back = _run("layer_norm", (4, 50), x, eps=0.0)
    assert made.q == pytest.approx(1.0) and made.mean == 0.0
    expected = [(c - 0.25) / 0.75 for c in (0.5, 0.4, 0.3)]
    assert [made.samples, made.positions, made.apart] == pytest.approx(expected)
    assert _gain(back) == pytest.approx((1 - 2 / 50) / (0.2 * 0.75))
    (pull,) = back([Pull(0.0, alike=0.3, winners=4)])
    assert pull.winners == 1 and pull.alike == pytest.approx((0.3 - 1 / 50) / (1 - 1 / 50))


def test_a_layer_norm_of_centred_numbers_removes_their_chance_mean() -> None:
    made, back = _run("layer_norm", (4, 10), Signal(np.array(0.2), samples=0.5), eps=0.0)
    assert made.q == pytest.approx(1.0) and made.samples == pytest.approx(0.5 / 0.9)
    assert _gain(back) == pytest.approx(0.8 / (0.2 * 0.9))
    rng = np.random.default_rng(0)
    h, g = math.sqrt(0.2) * rng.normal(size=(2, 20_000, 10))
    h = h - h.mean(1, keepdims=True)
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    g = g - g.mean(1, keepdims=True)
    g = (g - (g * unit).sum(1, keepdims=True) * unit) / np.sqrt(np.mean(h**2))
    assert _gain(back) == pytest.approx((g**2).sum() / (20_000 * 10 * 0.2), rel=0.02)


def test_gain_shift_and_epsilon() -> None:
    x = Signal(np.array(0.02), samples=0.2)
    made, back = _run("layer_norm", (4, 7), x, gain=0.3, shift=0.1, eps=0.01, elements=100)
    power = 0.3 * 0.02 * 0.99 / (0.02 * 0.99 + 0.01)
    assert made.q == pytest.approx(power + 0.1)
    assert made.samples == pytest.approx((power * 0.2 / 0.99 + 0.1) / (power + 0.1))
    assert _gain(back) == pytest.approx(0.3 / (0.02 * 0.99 + 0.01) * 0.98)
    small, _ = _run("layer_norm", (4, 100), Signal(np.array(1e-5)))
    assert small.q == pytest.approx(0.99 / 1.99)
    small, _ = _run("rms_norm", (4, 100), Signal(np.array(1e-6)))
    assert small.q == pytest.approx(0.5)


def test_a_norm_of_equal_numbers_leaves_nothing() -> None:
    made, back = _run("layer_norm", (4, 50), Signal(np.array(0.2), mean=1.0), eps=0.1)
    assert made.q == pytest.approx(0.0) and _gain(back) == pytest.approx(10 * 0.96)


def test_a_norm_of_few_elements_keeps_some_gradient() -> None:
    _, back = _run("layer_norm", (4, 1), Signal(np.array(0.2)), eps=0.1)
    assert _gain(back) == pytest.approx(10 * 0.02)
    (pull,) = back([Pull(0.0, alike=-0.5)])
    assert pull.alike == -1.0


def test_a_batch_norm_divides_by_the_variance_of_few_samples() -> None:
    x = Signal(np.array(0.2))
    made, back = _run("batch_norm", (8, 10), x, batch=8, eps=0.0)
    assert made.q == pytest.approx(1.0) and made.samples == pytest.approx(-1 / 7)
    _, back = _run("batch_norm", (32, 10), x, batch=32, eps=0.0)
    assert _gain(back) == pytest.approx((1 - 2 / 32) * 32 / (32 - 3) / 0.2, rel=0.005)


def test_a_batch_norm_removes_what_samples_and_positions_share() -> None:
    batch, positions, x = 4, 6, Signal(np.array(0.2), 0.3, 0.5, 0.2)
    one, two = (np.full((positions, positions), c) for c in (x.positions, x.apart))
    np.fill_diagonal(one, 1.0)
    np.fill_diagonal(two, x.samples)
    common = (one.sum() + (batch - 1) * two.sum()) / (batch * positions**2)
    made, back = _run("batch_norm", (batch, 10, 2, 3), x, batch=batch, eps=0.0)
    expected = [(c - common) / (1 - common) for c in (x.samples, x.positions, x.apart)]
    assert [made.samples, made.positions, made.apart] == pytest.approx(expected)
    assert made.q == pytest.approx(1.0)
    for cosine in (0.4, 0.0):  # of a gradient, between one sample's positions
        measured = _measure_batch_norm(x, batch, positions, cosine)
        assert _gain(back, alike=cosine) == pytest.approx(measured, rel=0.03)


def _measure_batch_norm(x: Signal, batch: int, positions: int, cosine: float) -> float:
    """Autograd's gain ||dx||^2 / ||dy||^2, over 4,000 channels drawn with the signal's cosines."""
    one, two = (np.full((positions, positions), c) for c in (x.positions, x.apart))
    np.fill_diagonal(one, 1.0)
    np.fill_diagonal(two, x.samples)
    values = np.kron(np.eye(batch), one) + np.kron(1 - np.eye(batch), two)
    pulls = np.kron(np.eye(batch), (1 - cosine) * np.eye(positions) + cosine)
    rng = np.random.default_rng(0)
    drawn = [
        torch.from_numpy(rng.multivariate_normal(np.zeros(len(c)), c, 4000)).view(4000, batch, positions)
        for c in (x.q * values, pulls)
    ]
    h, g = (d.movedim(0, 1).clone() for d in drawn)
    torch.nn.functional.batch_norm(h.requires_grad_(), None, None, training=True, eps=1e-12).backward(g)
    assert h.grad is not None
    return float(h.grad.square().sum() / g.square().sum())


def test_few_independent_samples_count_as_four_at_least() -> None:
    x = Signal(np.array(0.2))
    _, back = _run("batch_norm", (2, 10), x, batch=2, eps=0.0)
    assert _gain(back) == pytest.approx(3 / (0.2 * 0.5) * 0.02)
    _, alike = _run("batch_norm", (4, 10), Signal(samples=1.0), batch=4, eps=0.1)
    assert _gain(alike) == pytest.approx(10 * 3 * 0.5)


def test_a_batch_norm_with_running_statistics_is_a_factor() -> None:
    x = Signal(np.array([0.1, 0.3]), samples=0.5)
    known = {"batch_statistics": False, "gain": 0.3, "variance": 0.2, "shift": 0.1}
    made, back = _run("batch_norm", (8, 10, 2), x, batch=8, **known)
    assert made.power == pytest.approx([0.25, 0.55]) and made.samples == pytest.approx((0.15 + 0.1) / 0.4)
    assert _gain(back) == pytest.approx(1.5) and back([Pull(0.0, winners=4)])[0].winners == 1
    plain, _ = _run("batch_norm", (8, 10), Signal(np.array(0.1)), batch=8, batch_statistics=False)
    assert plain.q == 0.1


def test_a_group_norm_averages_over_its_channels_and_positions() -> None:
    x = Signal(np.array(0.2), 0.5, 0.3, 0.2, 0.4)
    made, back = _run("group_norm", (4, 6, 2, 2), x, eps=0.0, groups=2)
    same = (1 + 3 * 0.3) / 4  # the mean over one channel's positions
    common = same / 3 + 2 / 3 * 0.4**2
    assert made.q == pytest.approx(1.0)
    assert made.samples == pytest.approx((0.5 - common) / (1 - common))
    lost = 2 / 12 + 3 / 4 / 3 * 0.2
    assert _gain(back, alike=0.2) == pytest.approx((1 - lost) / (0.2 * (1 - common)))


def test_an_instance_norm_is_a_group_norm_of_one_channel() -> None:
    x = Signal(np.array(0.2), 0.5, 0.3, 0.2, 0.4)
    one, _ = _run("instance_norm", (4, 6, 2, 2), x, eps=0.0)
    other, _ = _run("group_norm", (4, 6, 2, 2), x, eps=0.0, groups=6)
    common = (1 + 3 * 0.3) / 4
    assert one.samples == other.samples == pytest.approx((0.5 - common) / (1 - common))
    flat, back = _run("group_norm", (4, 6), Signal(np.array(0.2), samples=0.5), eps=0.0, groups=1)
    assert flat.samples == pytest.approx((0.5 - 1 / 6) / (5 / 6))
    assert _gain(back, alike=0.5) == pytest.approx((1 - 2 / 6) / (0.2 * 5 / 6))


def test_an_rms_norm_keeps_the_mean_and_loses_one_direction() -> None:
    x = Signal(np.array([0.1, 0.3]), 0.5, mean=0.4)
    made, back = _run("rms_norm", (4, 10), x, gain=0.3, eps=0.05)
    assert made.power == pytest.approx([0.3 * 0.1 / 0.25, 0.3 * 0.3 / 0.25])
    assert (made.samples, made.mean) == (0.5, 0.4)
    assert _gain(back) == pytest.approx(0.3 / 0.25 * 0.9) and back([Pull(0.0, winners=4)])[0].winners == 1
    _, wide = _run("rms_norm", (4, 10), Signal(np.array(0.2)), elements=40)
    assert _gain(wide) == pytest.approx((1 - 1 / 40) / 0.2, rel=1e-4)
