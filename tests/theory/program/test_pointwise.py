"""Activations, sums, products and views: closed forms, Gauss-Hermite sums and linear maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from unvanish.theory.program.pointwise import POINTWISE
from unvanish.theory.program.signal import Pull, Signal
from unvanish.theory.program.steps import Step
from unvanish.theory.quadrature import Array

Shape = tuple[int, ...]
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def _build(
    kind: str, reads: list[Shape], makes: Shape | None = None, same: bool = False, **facts: Any
) -> Step:
    inputs = (0,) * len(reads) if same else tuple(range(len(reads)))
    return Step(kind, "", inputs, (9,), tuple(reads), (makes or reads[0],), facts)


def _run(step: Step, *given: Signal, batch: int = 1) -> tuple[Signal, Any]:
    (made,), back = POINTWISE[step.kind](step, list(given), batch)
    return made, back


def _mean(function: Callable[[Array], Array], mean: float, deviation: float) -> float:
    return float(WEIGHTS @ function(mean + deviation * NODES))


def _overlap(function: Callable[[Array], Array], mean: float, deviation: float, cosine: float) -> float:
    """<f(u) f(v)> / <f^2> for two inputs of this mean and deviation whose correlation is `cosine`."""
    u = NODES[:, None] + 0 * NODES
    v = cosine * u + math.sqrt(1 - cosine**2) * NODES
    product = function(mean + deviation * u) * function(mean + deviation * v)
    return float(WEIGHTS @ product @ WEIGHTS) / _mean(lambda x: function(x) ** 2, mean, deviation)


def _tanh_slope(x: Array) -> Array:
    return np.asarray(1 - np.tanh(x) ** 2)


def test_relu_has_the_arc_cosine_kernel() -> None:
    x = Signal(np.array(0.3), 0.5, 0.2, -0.4)
    step = _build("relu", [(4, 20)])
    made, back = _run(step, x)
    assert made.q == pytest.approx(0.15) and made.mean == pytest.approx(1 / math.sqrt(math.pi), abs=1e-4)
    kernel = [
        (math.sqrt(1 - c**2) + (math.pi - math.acos(c)) * c) / math.pi
        for c in (x.samples, x.positions, x.apart)
    ]
    assert [made.samples, made.positions, made.apart] == pytest.approx(kernel, abs=2e-3)
    (pull,) = back([Pull(2.0, alike=0.5)])
    assert pull.log == pytest.approx(2 - math.log(2) - 3 / (2 * 20))
    assert pull.alike == pytest.approx(0.5 * (1 - math.acos(0.2) / math.pi), abs=5e-3)
    assert pull.share.shape == ()


@pytest.mark.parametrize(("samples", "several"), [(0.0, 4.0), (0.5, 4 / 1.75), (1.0, 1.0), (-0.5, 4.0)])
def test_a_batch_loses_less_unless_its_samples_are_alike(samples: float, several: float) -> None:
    for mean, log in ((0.0, -math.log(2)), (0.5, None)):
        x = Signal(np.array(0.3), samples, mean=mean)
        step = _build("relu", [(4, 20)])
        one, many = (_run(step, x, batch=b)[1]([Pull(0.0)])[0].log for b in (1, 4))
        if log is not None:
            assert many - log == pytest.approx(-3 / 40 / several)
        wide = _run(_build("relu", [(4, 10**9)]), x)[1]([Pull(0.0)])[0].log
        assert (one - wide) / (many - wide) == pytest.approx(several, rel=1e-4)


def test_smooth_activations_have_their_gaussian_means() -> None:
    q = 0.4
    made, back = _run(_build("tanh", [(4, 20)]), Signal(np.array(q), 0.6, 0.3, -0.5))
    power = _mean(lambda x: np.tanh(x) ** 2, 0, math.sqrt(q))
    assert made.q == pytest.approx(power, rel=1e-4) and made.mean == pytest.approx(0.0, abs=1e-6)
    expected = [_overlap(np.tanh, 0, math.sqrt(q), c) for c in (0.6, 0.3, -0.5)]
    assert [made.samples, made.positions, made.apart] == pytest.approx(expected, abs=1e-3)
    slope = _mean(lambda x: _tanh_slope(x) ** 2, 0, math.sqrt(q))
    fourth = _mean(lambda x: _tanh_slope(x) ** 4, 0, math.sqrt(q))
    (pull,) = back([Pull(0.0, alike=0.5)])
    lost = 3 * (fourth / slope**2 - 1) / 40
    assert pull.log == pytest.approx(math.log(slope) - lost, rel=1e-4)
    assert pull.alike == pytest.approx(0.5 * _overlap(_tanh_slope, 0, math.sqrt(q), 0.3), rel=1e-3)


def test_settings_of_an_activation_reach_its_curve() -> None:
    made, _ = _run(_build("leaky_relu", [(4, 20)], settings={"negative_slope": 0.5}), Signal(np.array(0.4)))
    assert made.q == pytest.approx(0.4 * (1 + 0.25) / 2)


def test_an_activation_of_a_map_weighs_the_gradient_by_the_slopes() -> None:
    power = np.array([[0.01, 4.0]])
    step = _build("tanh", [(4, 10**6, 1, 2)])
    made, back = _run(step, Signal(power))
    expected = [_mean(lambda x: np.tanh(x) ** 2, 0, math.sqrt(p)) for p in power[0]]
    assert made.power[0] == pytest.approx(expected, rel=1e-3)
    slopes = np.array([_mean(lambda x: _tanh_slope(x) ** 2, 0, math.sqrt(p)) for p in power[0]])
    (pull,) = back([Pull(0.0, np.array([[0.3, 0.1]]))])
    total = 0.75 * slopes[0] + 0.25 * slopes[1]
    assert math.exp(pull.log) == pytest.approx(total, rel=1e-3)
    assert pull.share[0] == pytest.approx([0.75 * slopes[0] / total, 0.25 * slopes[1] / total], rel=5e-3)
    (even,) = back([Pull(0.0)])
    assert math.exp(even.log) == pytest.approx(slopes.mean(), rel=1e-3) and even.share.shape == ()


def test_rectified_winners_of_max_pooling_are_mostly_active() -> None:
    _, back = _run(_build("relu", [(4, 20)]), Signal())
    (pull,) = back([Pull(1.0, alike=0.5, winners=4)])
    assert math.exp(pull.log - 1) == pytest.approx(15 / 16) and pull.winners == 1 and pull.alike == 0.5
    assert math.exp(back([Pull(1.0, winners=2)])[0].log - 1) == pytest.approx(3 / 4)
    _, smooth = _run(_build("tanh", [(4, 20)]), Signal())
    assert smooth([Pull(1.0, winners=4)])[0].log == smooth([Pull(1.0)])[0].log


@pytest.mark.parametrize("mean", [0.6, -0.6, 0.101])
@pytest.mark.parametrize("kind", ["square", "tanh"])
def test_activations_of_a_stream_with_a_mean(kind: str, mean: float) -> None:
    value = np.square if kind == "square" else np.tanh
    slope: Callable[[Array], Array] = _tanh_slope if kind == "tanh" else (lambda x: 2 * x)
    q = 0.5
    center, deviation = mean * math.sqrt(q), math.sqrt(q * (1 - mean**2))
    cosines = [mean**2 + (1 - mean**2) * c for c in (0.5, 0.2, -0.3)]
    made, back = _run(_build(kind, [(4, 20)]), Signal(np.array(q), *cosines, mean))
    power = _mean(lambda x: value(x) ** 2, center, deviation)
    assert made.q == pytest.approx(power, rel=1e-3)
    assert made.mean == pytest.approx(_mean(value, center, deviation) / math.sqrt(power), rel=1e-3)
    expected = [_overlap(value, center, deviation, c) for c in (0.5, 0.2, -0.3)]
    assert [made.samples, made.positions, made.apart] == pytest.approx(expected, rel=2e-3, abs=1e-3)
    second = _mean(lambda x: slope(x) ** 2, center, deviation)
    fourth = _mean(lambda x: slope(x) ** 4, center, deviation)
    (pull,) = back([Pull(1.0, alike=0.5)])
    assert pull.log == pytest.approx(1 + math.log(second) - 3 * (fourth / second**2 - 1) / 40, rel=1e-3)
    assert pull.alike == pytest.approx(0.5 * _overlap(slope, center, deviation, 0.2), rel=2e-3)


def test_a_mean_counts_above_a_tenth() -> None:
    step = _build("exp", [(4, 10**9)])
    free = _run(step, Signal(np.array(0.5)))[0].q
    assert free == pytest.approx(math.exp(2 * 0.5), rel=1e-3)
    for mean in (0.1, -0.1):
        assert _run(step, Signal(np.array(0.5), mean=mean))[0].q == free
    for mean in (0.11, -0.11):
        expected = math.exp(2 * mean * math.sqrt(0.5) + 2 * 0.5 * (1 - mean**2))
        assert _run(step, Signal(np.array(0.5), mean=mean))[0].q == pytest.approx(expected, rel=2e-3)
    assert _run(step, Signal(np.zeros(()), mean=0.5))[0].q == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_constant_stream_is_mapped_to_the_value_of_the_function(sign: float) -> None:
    made, back = _run(_build("square", [(4, 20)]), Signal(np.array(0.5), 1.0, 1.0, 1.0, sign))
    assert made.q == pytest.approx(0.25, rel=0.02) and made.samples == pytest.approx(1.0, abs=1e-6)
    assert math.exp(back([Pull(0.0)])[0].log) == pytest.approx(4 * 0.5, rel=0.02)


def test_no_gradient_passes_a_slope_of_zero() -> None:
    flat = _build("pow", [(4, 20)], settings={"exponent": 0.0})
    for mean in (0.0, 0.5):
        assert _run(flat, Signal(mean=mean))[1]([Pull(0.0)])[0].log == -math.inf


def _moments(kind: str, a: Signal, b: Signal) -> list[float]:
    """Power, three cosines and the size of the mean of a + b or a - b, independent of each other."""
    sign = 1.0 if kind == "add" else -1.0
    ma, mb = a.mean * math.sqrt(a.q), sign * b.mean * math.sqrt(b.q)
    power = a.q + b.q + 2 * ma * mb
    pairs = ((a.samples, b.samples), (a.positions, b.positions), (a.apart, b.apart))
    return [
        power,
        *((s * a.q + t * b.q + 2 * ma * mb) / power for s, t in pairs),
        (ma + mb) / math.sqrt(power),
    ]


@pytest.mark.parametrize("kind", ["add", "sub"])
def test_sums_add_powers_and_the_product_of_the_means(kind: str) -> None:
    a, b = Signal(np.array(0.1), 0.5, 0.3, 0.2, 0.4), Signal(np.array(0.3), 0.1, 0.6, 0.25, 0.3)
    made, back = _run(_build(kind, [(4, 20)] * 2), a, b)
    found = [made.q, made.samples, made.positions, made.apart, made.mean]
    expected = _moments(kind, a, b)
    assert found[:4] == pytest.approx(expected[:4])
    if kind == "add":
        assert made.mean == pytest.approx(expected[4])
    one, two = back([Pull(1.0, alike=0.3, winners=4)])
    assert one.log == two.log == 1.0 and one.winners == two.winners == 1 and one.alike == 0.3


def test_sums_of_maps_and_of_nothing() -> None:
    a, b = Signal(np.array([0.1, 0.3])), Signal(np.array(0.2))
    made, _ = _run(_build("add", [(4, 5, 2)] * 2), a, b)
    assert made.power == pytest.approx([0.3, 0.5])
    zero = Signal(np.zeros(()), 0.5, 0.5, 0.5, 0.5)
    made, _ = _run(_build("add", [(4, 5)] * 2), zero, zero)
    assert (made.q, made.samples, made.positions, made.apart, made.mean) == (0, 0, 0, 0, 0)


def test_a_tensor_and_itself() -> None:
    x = Signal(np.array(0.1), samples=0.5)
    made, back = _run(_build("add", [(4, 20)] * 2, same=True), x, x)
    assert made.q == pytest.approx(0.4) and made.samples == 0.5
    one, two = back([Pull(0.0)])
    assert math.exp(one.log) == pytest.approx(4.0) and two.log == -math.inf
    assert _run(_build("sub", [(4, 20)] * 2, same=True), x, x)[0].q == 0.0
    made, back = _run(_build("mul", [(4, 20)] * 2, same=True), x, x)
    assert made.q == pytest.approx(0.01)
    one, two = back([Pull(0.0)])
    assert math.exp(one.log) == pytest.approx(4 * 0.1) and two.log == -math.inf


def test_a_number_added_or_multiplied() -> None:
    x = Signal(np.array(0.1))
    made, back = _run(_build("add", [(4, 20)], power=0.3, mean=0.2), x)
    assert made.q == pytest.approx(0.4) and made.mean == pytest.approx(0.2 / math.sqrt(0.4))
    pull = Pull(1.0, winners=4)
    assert back([pull])[0] is pull
    assert _run(_build("add", [(4, 20)]), x)[0] is x
    made, _ = _run(_build("add", [(4, 20)], power=0.3), Signal(np.array(0.1), mean=0.5))
    assert made.q == pytest.approx(0.4)
    made, back = _run(_build("div", [(4, 20)], power=0.3), x)
    assert made.q == pytest.approx(0.03)
    (arrived,) = back([pull])
    assert arrived.log == pytest.approx(1 + math.log(0.3)) and arrived.winners == 1
    assert _run(_build("mul", [(4, 20)]), x)[0].q == 0.1


def test_products_multiply_moments() -> None:
    a, b = Signal(np.array(0.1), 0.5, 0.3, 0.2, 0.4), Signal(np.array(0.3), 0.1, 0.6, 0.25, 0.5)
    made, back = _run(_build("mul", [(4, 20)] * 2), a, b)
    assert (made.q, made.samples, made.positions) == pytest.approx((0.03, 0.05, 0.18))
    assert (made.apart, made.mean) == pytest.approx((0.05, 0.2))
    one, two = back([Pull(0.0, winners=4)])
    assert (math.exp(one.log), math.exp(two.log)) == pytest.approx((0.3, 0.1))
    assert one.winners == two.winners == 1


@pytest.mark.parametrize("kind", ["add", "mul"])
@pytest.mark.parametrize("cosine", [0.0, 0.4, -0.4])
def test_a_broadcast_operand_gets_the_sum_over_its_positions(kind: str, cosine: float) -> None:
    _, back = _run(_build(kind, [(4, 20, 6), (4, 20, 1)], (4, 20, 6)), Signal(), Signal())
    one, two = back([Pull(0.0, alike=cosine, winners=4)])
    gradient = (1 - cosine) * np.eye(6) + cosine  # cosines between the six positions
    expected = gradient.sum() / 6 if cosine >= 0 else 1.0
    assert one.log == pytest.approx(0.0) and math.exp(two.log) == pytest.approx(expected)
    assert two.winners == 1


def test_a_scalar_operand_gets_the_sum_over_everything() -> None:
    _, back = _run(_build("add", [(4, 5), ()], (4, 5)), Signal(), Signal())
    assert math.exp(back([Pull(0.0, alike=1.0)])[1].log) == pytest.approx(20.0)


def test_a_view_keeps_the_map_if_it_keeps_the_shape() -> None:
    x = Signal(np.array([1.0, 3.0]))
    assert _run(_build("clone", [(4, 5, 2)]), x)[0] is x
    made, back = _run(_build("flatten", [(4, 5, 2)], (4, 10)), x)
    assert made.power.shape == () and made.q == 2.0
    (pull,) = back([Pull(1.0, np.array([0.2, 0.3, 0.5]), 0.3, winners=4)])
    assert pull.share.shape == () and (pull.log, pull.alike, pull.winners, pull.part) == (1.0, 0.3, 4, 1.0)
    (kept,) = back([Pull(1.0, np.array([0.2, 0.8]))])
    assert kept.share.tolist() == [0.2, 0.8]


def test_a_selection_receives_a_part_of_the_gradient() -> None:
    _, back = _run(_build("select", [(4, 10, 5)], (4, 5)), Signal())
    assert back([Pull(1.0)])[0].part == pytest.approx(0.1)
    assert back([Pull(1.0, part=0.5)])[0].part == pytest.approx(0.05)
    assert _run(_build("repeat", [(4, 5)], (8, 5)), Signal())[1]([Pull(1.0)])[0].part == 1.0
    assert _run(_build("expand", [(0, 5)], (8, 5)), Signal())[1]([Pull(1.0)])[0].part == 1.0


def test_the_pieces_of_a_split_add_their_gradients() -> None:
    step = Step("chunk", "", (0,), (1, 2), ((4, 10),), ((4, 5), (4, 5)))
    _, back = _run(step, Signal())
    (pull,) = back([Pull(0.0), Pull(math.log(3))])
    assert pull.log == pytest.approx(math.log(4)) and pull.part == 1.0
    (one,) = back([Pull(), Pull(0.5, winners=4)])
    assert one.log == pytest.approx(0.5)
    nothing = Step("view", "", (0,), (), ((4, 10, 2),), ())
    assert POINTWISE["view"](nothing, [Signal(np.array([1.0, 3.0]))], 1)[0][0].power.shape == ()
