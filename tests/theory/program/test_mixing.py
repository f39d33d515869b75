"""Pooling, concatenation and attention, against the covariances that linear maps give and against draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.theory.program.follow import predict
from unvanish.theory.program.mixing import MIXING
from unvanish.theory.program.signal import Pull, Signal
from unvanish.theory.program.steps import Program, Step
from unvanish.theory.quadrature import Array

Shape = tuple[int, ...]


def _build(kind: str, reads: list[Shape], makes: Shape, **facts: Any) -> Step:
    return Step(kind, "", tuple(range(len(reads))), (9,), tuple(reads), (makes,), facts)


def _run(step: Step, *given: Signal) -> tuple[Signal, Any]:
    (made,), back = MIXING[step.kind](step, list(given), 1)
    return made, back


def _covariance(x: Signal, positions: int) -> Array:
    """Of two samples at these positions, (2 positions, 2 positions), at power 1."""
    one = np.full((positions, positions), x.positions)
    two = np.full((positions, positions), x.apart)
    np.fill_diagonal(one, 1.0)
    np.fill_diagonal(two, x.samples)
    return np.block([[one, two], [two, one]])


def _alike(cosine: float, positions: int) -> Array:
    return np.full((positions, positions), cosine) + (1 - cosine) * np.eye(positions)


@pytest.mark.parametrize(("kind", "window"), [("avg_pool1d", 3), ("mean", 4), ("sum", 4), ("avg_pool2d", 2)])
def test_means_over_windows_have_the_covariance_of_the_linear_map(kind: str, window: int) -> None:
    x = Signal(np.array(0.2), 0.3, 0.4, 0.25, 0.2)
    step = _build(kind, [(2, 5, 2 * window)], (2, 5, 2))
    made, back = _run(step, x)
    value = 1.0 if kind == "sum" else 1 / window
    pool = np.kron(np.eye(2), np.full(window, value))  # (2, 2 window)
    both = np.kron(np.eye(2), pool)
    out = both @ _covariance(x, 2 * window) @ both.T
    assert made.q == pytest.approx(0.2 * out[0, 0])
    expected = [out[0, 2], out[0, 1], out[0, 3]] / out[0, 0]
    assert [made.samples, made.positions, made.apart] == pytest.approx(list(expected))
    assert made.mean == pytest.approx(0.2 * pool[0].sum() / math.sqrt(out[0, 0]))
    (pull,) = back([Pull(0.0, alike=0.3)])
    gradient = pool.T @ _alike(0.3, 2) @ pool
    assert math.exp(pull.log) == pytest.approx(np.trace(gradient) / 2)
    if "pool" in kind:
        n = 2 * window
        pairs = (gradient.sum() - np.trace(gradient)) / (n * (n - 1)) / gradient[0, 0]
        assert pull.alike == pytest.approx(pairs)
    else:
        assert pull.alike == 1.0


def test_overlapping_windows_add_what_their_gradients_have_in_common() -> None:
    x, n = Signal(), 8
    made, back = _run(_build("avg_pool1d", [(2, 5, n)], (2, 5, n), window=3), x)
    pool = sum(np.roll(np.eye(n), k, 1) for k in range(3)) / 3  # circular
    assert made.q == pytest.approx(1 / 3)
    for cosine in (0.0, 0.5):
        (pull,) = back([Pull(0.0, alike=cosine)])
        assert math.exp(pull.log) == pytest.approx(np.trace(pool.T @ _alike(cosine, n) @ pool) / n)
    assert back([Pull(0.0, alike=-0.5)])[0].log == pytest.approx(math.log(1 / 3))


def test_averages_of_opposite_and_of_single_positions() -> None:
    made, _ = _run(_build("mean", [(2, 5, 2)], (2, 5, 1)), Signal(positions=-1.0, mean=0.5))
    assert made.q == 0.0 and (made.positions, made.mean) == (0.0, 1.0)
    x = Signal(np.array(0.7), 0.3, 0.4, 0.2, 0.1)
    made, back = _run(_build("avg_pool1d", [(2, 5, 4)], (2, 5, 4)), x)
    assert (made.q, made.samples, made.positions) == (0.7, 0.3, 0.4)
    (pull,) = back([Pull(1.0, alike=0.3)])
    assert pull.log == pytest.approx(1.0) and pull.alike == pytest.approx(0.3)
    made, back = _run(_build("mean", [(2, 1)], (2, 1)), x)  # one position alone
    assert back([Pull(1.0, alike=0.3)])[0].alike == pytest.approx(0.3)
    wider, _ = _run(_build("avg_pool1d", [(2, 5, 2)], (2, 5, 4)), x)
    assert wider.q == 0.7


def _largest(rivals: int, rectified: bool) -> tuple[float, float]:
    """Mean and mean square of the largest of standard normals, by a sum over a fine grid."""
    z = np.linspace(-9, 9, 200_001)
    below = np.cumsum(np.exp(-(z**2) / 2)) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    share = np.diff(below**rivals, prepend=0.0)
    value = np.maximum(z, 0) if rectified else z
    return float(share @ value), float(share @ value**2)


@pytest.mark.parametrize("rivals", [1, 2, 4, 9])
@pytest.mark.parametrize("mean", [0.0, 0.3, 0.31])
def test_max_pooling_takes_the_largest_of_normals_or_of_rectified_normals(rivals: int, mean: float) -> None:
    x = Signal(np.array(0.1), samples=0.2, mean=mean)
    made, back = _run(_build("max_pool2d", [(2, 5, 6, 6)], (2, 5, 3, 3), window=rivals), x)
    average, square = _largest(rivals, mean > 0.3)
    variance = 0.2 if mean > 0.3 else 0.1  # a rectified normal has half its power
    assert made.q == pytest.approx(variance * square, rel=2e-3)
    assert made.mean == pytest.approx(average / math.sqrt(square), rel=2e-3, abs=1e-3)
    assert made.samples == 0.2
    (pull,) = back([Pull(1.0, np.array([0.5, 0.5]))])
    assert pull.log == 1.0 and pull.winners == rivals and pull.share.shape == ()


def test_max_pooling_has_four_rivals_by_default() -> None:
    made, back = _run(_build("amax", [(2, 5, 6, 6)], (2, 5, 3, 3)), Signal())
    assert made.q == pytest.approx(1.5513, abs=2e-3) and back([Pull(0.0)])[0].winners == 4
    assert _run(_build("amax", [(2, 5)], (2, 5), window=0), Signal())[0].q == pytest.approx(1.0)


def test_upsampling_adds_the_gradients_of_the_copies() -> None:
    x = Signal(np.array([1.0, 3.0]))
    made, back = _run(_build("interpolate", [(2, 5, 2)], (2, 5, 6)), x)
    assert made.power.shape == () and made.q == 2.0
    copies = np.kron(np.eye(2), np.ones((3, 1)))
    for cosine in (0.4, 0.0):
        (pull,) = back([Pull(0.0, np.array([0.5, 0.5]), cosine, winners=4)])
        assert math.exp(pull.log) == pytest.approx(np.trace(copies.T @ _alike(cosine, 6) @ copies) / 6)
        assert pull.winners == 1 and pull.share.shape == ()
    assert back([Pull(0.0, alike=-0.4)])[0].log == 0.0


def test_a_concatenation_is_weighted_by_the_sizes() -> None:
    a = Signal(np.array([0.1, 0.3]), 0.5, 0.2, 0.1, 0.3)
    b = Signal(np.array(0.4), -0.1, 0.6, 0.3, -0.2)
    made, back = _run(_build("cat", [(2, 1, 2), (2, 3, 2)], (2, 4, 2)), a, b)
    assert made.power == pytest.approx([0.25 * 0.1 + 0.3, 0.25 * 0.3 + 0.3])
    pairs = ((0.5, -0.1), (0.2, 0.6), (0.1, 0.3))
    expected = [(0.25 * 0.2 * s + 0.75 * 0.4 * t) / 0.35 for s, t in pairs]
    assert [made.samples, made.positions, made.apart] == pytest.approx(expected)
    mean = 0.25 * 0.3 * math.sqrt(0.2) - 0.75 * 0.2 * math.sqrt(0.4)
    assert made.mean == pytest.approx(mean / math.sqrt(0.35))
    one, two = back([Pull(1.0, alike=0.3, winners=4)])
    assert (one.log, two.log) == pytest.approx((1 + math.log(0.25), 1 + math.log(0.75)))
    assert one.winners == two.winners == 1 and one.alike == 0.3
    nothing, _ = _run(_build("cat", [(2, 1), (2, 3)], (2, 4)), Signal(np.zeros(())), Signal(np.zeros(())))
    assert nothing.q == 0.0 and nothing.samples == 0.0
    equal, _ = _run(_build("cat", [(), ()], (2,)), Signal(np.array(0.2)), Signal(np.array(0.4)))
    assert equal.q == pytest.approx(0.3)


def test_softmax_of_normal_logits_against_draws() -> None:
    rng, tokens, variance = np.random.default_rng(1), 64, 0.5
    logits = math.sqrt(variance) * rng.normal(size=(4000, tokens))
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    made, back = _run(_build("softmax", [(4, tokens)], (4, tokens)), Signal(np.array(variance)))
    power = float(np.mean(p**2))
    assert made.q == pytest.approx(power, rel=0.02)
    assert made.squares == pytest.approx(tokens * power, rel=0.02)
    assert made.mean == pytest.approx(1 / tokens / math.sqrt(power), rel=0.02)
    product = float(np.mean(p[::2] * p[1::2])) / power
    for cosine in (made.samples, made.positions, made.apart):
        assert cosine == pytest.approx(product, rel=0.03)
    gradient = rng.normal(size=p.shape)
    arrived = p * (gradient - (p * gradient).sum(1, keepdims=True))
    (pull,) = back([Pull(0.0, alike=0.5)])
    assert math.exp(pull.log) == pytest.approx((arrived**2).sum() / (gradient**2).sum(), rel=0.1)
    assert pull.centred and pull.alike == 0.0


def test_scores_of_queries_and_keys_against_draws() -> None:
    rng, tokens, size, common = np.random.default_rng(0), 200, 32, 0.5
    q = math.sqrt(0.3) * rng.normal(size=(tokens, size))
    shared = rng.normal(size=size)
    shared *= math.sqrt(size) / np.linalg.norm(shared)
    k = math.sqrt(0.2) * (math.sqrt(common) * shared + math.sqrt(1 - common) * rng.normal(size=q.shape))
    step = _build("matmul", [(1, tokens, size), (1, size, tokens)], (1, tokens, tokens))
    given = Signal(np.array(0.3), 0.1, 0.2), Signal(np.array(0.2), 0.1, common)
    made, back = _run(step, *given)
    assert made.q == pytest.approx(np.mean((q @ k.T) ** 2), rel=0.1)
    assert (made.samples, made.positions, made.mean) == (0.0, 0.0, 0.0)
    for centred in (False, True):
        g = rng.normal(size=(tokens, tokens))
        if centred:
            g -= g.mean(1, keepdims=True)
        one, other = back([Pull(0.0, np.ones(3), winners=4, centred=centred)])
        assert math.exp(one.log) == pytest.approx(((g @ k) ** 2).sum() / (g**2).sum(), rel=0.1)
        assert math.exp(other.log) == pytest.approx(((g.T @ q) ** 2).sum() / (g**2).sum(), rel=0.1)
        assert one.share.shape == () and one.winners == 1 and not one.centred
    opposite, _ = back([Pull(0.0, centred=True)])
    negative = _run(step, given[0], Signal(np.array(0.2), 0.1, -0.5))[1]([Pull(0.0, centred=True)])[0]
    assert negative.log == pytest.approx(opposite.log + math.log(2))


def test_a_product_with_a_matrix_of_constants_multiplies_by_its_taps() -> None:
    step = _build("matmul", [(2, 3)], (2, 3), taps=np.array([0.2, 0.3]))
    made, back = _run(step, Signal(np.array([1.0, 3.0])))
    assert made.q == pytest.approx(1.0) and back([Pull(1.0)])[0].log == pytest.approx(1 + math.log(0.5))
    assert _run(_build("matmul", [(2, 3)], (2, 3)), Signal())[0].q == 1.0


def _weights(rng: np.random.Generator, rows: int, tokens: int, variance: float) -> Array:
    p = np.exp(math.sqrt(variance) * rng.normal(size=(rows, tokens)))
    return np.asarray(p / p.sum(1, keepdims=True))


def test_weights_times_values_against_the_covariance_of_independent_weights() -> None:
    rng, tokens = np.random.default_rng(0), 16
    squares = float((_weights(rng, 4000, tokens, 1.0) ** 2).sum(1).mean())
    v = Signal(np.array(0.2), 0.5, 0.3, 0.15, 0.1)
    weights = Signal(np.array(squares / tokens), squares=squares)
    step = _build("bmm", [(2, tokens, tokens), (2, tokens, 8)], (2, tokens, 8))
    made, back = _run(step, weights, v)
    cov = _covariance(v, tokens)
    one, other = cov[:tokens, :tokens], cov[:tokens, tokens:]
    p, p2 = _weights(rng, 4000, tokens, 1.0), _weights(rng, 4000, tokens, 1.0)
    power = float(np.mean(np.sum(p @ one * p, 1)))
    assert made.q == pytest.approx(0.2 * power, rel=0.02)
    assert made.positions == pytest.approx(np.mean(np.sum(p @ one * p2, 1)) / power, rel=0.02)
    assert made.samples == pytest.approx(np.mean(np.sum(p @ other * p2, 1)) / power, rel=0.02)
    assert made.apart == pytest.approx(0.15 / power, rel=0.02)
    assert made.mean == pytest.approx(0.1 / math.sqrt(power), rel=0.02)
    grad_p, grad_v = back([Pull(0.0, np.ones(3), 0.25, winners=4)])
    values = rng.multivariate_normal(np.zeros(tokens), 0.2 * one, 20_000)  # (units, tokens)
    centred = values - values.mean(1, keepdims=True)
    assert math.exp(grad_p.log) == pytest.approx((centred**2).sum(1).mean() * tokens / (tokens - 1), rel=0.03)
    total, apart = 0.0, 0.0
    alike = _alike(0.25, tokens)
    for rows in p.reshape(-1, tokens, tokens):
        arrived = rows.T @ alike @ rows / tokens
        total += float(np.trace(arrived)) / (len(p) / tokens)
        apart += float(arrived.sum() - np.trace(arrived)) / (tokens - 1) / (len(p) / tokens)
    assert math.exp(grad_v.log) == pytest.approx(total, rel=0.05)
    assert grad_v.alike == pytest.approx((1 / tokens + (1 - 1 / tokens) * 0.25) / (0.75 * squares + 0.25))
    assert grad_v.winners == 4 and grad_v.share.shape == ()
    assert grad_v.alike == pytest.approx(apart / total, rel=0.2)


def test_values_that_oppose_each_other_count_as_independent() -> None:
    weights = Signal(squares=0.25)
    step = _build("bmm", [(2, 8, 8), (2, 8, 4)], (2, 8, 4))
    made, back = _run(step, weights, Signal(np.array(0.5), 0.0, -0.5, -0.5))
    assert made.q == pytest.approx(0.125) and made.positions == pytest.approx(0.5)
    assert (made.samples, made.apart) == (0.0, 0.0)
    grad_p, grad_v = back([Pull(0.0, alike=-0.5)])
    assert (grad_p.log, grad_v.log) == pytest.approx((math.log(8 * 0.5), math.log(0.25)))
    vector = _build("mm", [(2, 8), (8,)], (2,))
    assert _run(vector, Signal(squares=0.25), Signal())[0].positions == 1.0


def _attend(scale: float, fused: bool, causal: bool = False) -> Any:
    """A program of attention over a linear layer's outputs, in one call or in four."""
    x, scores = (4, 10, 16), (4, 10, 10)
    facts = [{"taps": np.array([s]), "bias_power": b, "bias_mean": 0.0} for s, b in
             ((0.8, 0.1), (0.6, 0.2), (0.4, 0.15))]  # fmt: skip
    steps = [Step("linear", "", (0,), (i + 1,), (x,), (x,), facts[i]) for i in range(3)]
    if fused:
        known: dict[str, Any] = {"causal": True} if causal else {}
        known |= {} if scale == 0.25 else {"scale": scale}
        steps.append(Step("scaled_dot_product_attention", "", (1, 2, 3), (9,), (x,) * 3, (x,), known))
    else:
        steps += [
            Step("transpose", "", (2,), (4,), (x,), ((4, 16, 10),)),
            Step("matmul", "", (1, 4), (5,), (x, (4, 16, 10)), (scores,)),
            Step("mul", "", (5,), (6,), (scores,), (scores,), {"power": scale**2}),
            Step("softmax", "", (6,), (7,), (scores,), (scores,)),
            Step("matmul", "", (7, 3), (9,), (scores, x), (x,)),
        ]
    return predict(Program(tuple(steps), {0: x}, {9: x}, 4), 0.5, 0.3)


@pytest.mark.parametrize("scale", [0.25, 0.5])
def test_attention_in_one_call_is_attention_in_four(scale: float) -> None:
    one, four = _attend(scale, True), _attend(scale, False)
    a, b = one.signals[9], four.signals[9]
    assert a.q == pytest.approx(b.q)
    assert (a.samples, a.positions, a.apart) == pytest.approx((b.samples, b.positions, b.apart))
    for number in (1, 2, 3):
        assert one.pulls[number].log == pytest.approx(four.pulls[number].log)


def test_causal_attention_averages_over_the_lengths_seen() -> None:
    step = _build("scaled_dot_product_attention", [(2, 320, 16)] * 3, (2, 320, 16), causal=True)
    made, _ = _run(step, *[Signal(np.array(0.1))] * 3)
    middles = np.arange(16) * 20 + 10  # of sixteen parts of the sequence
    assert made.q == pytest.approx(0.1 * np.mean(np.exp(0.01) / middles), rel=0.01)
    assert made.q == pytest.approx(0.1 * np.mean(1 / np.arange(1, 321)), rel=0.3)
    plain, _ = _run(step._replace(facts={}), *[Signal(np.array(0.1))] * 3)
    assert plain.q == pytest.approx(0.1 * np.exp(0.01) / 320, rel=0.01)
    short = _build("scaled_dot_product_attention", [(2, 2, 16)] * 3, (2, 2, 16), causal=True)
    assert _run(short, *[Signal(np.array(0.1))] * 3)[0].q == pytest.approx(0.1 * 0.75, rel=0.01)


def test_one_tensor_as_queries_keys_and_values_gets_all_three_gradients() -> None:
    x, shape = Signal(np.array(0.5), 0.1, 0.2, 0.1), (2, 10, 16)
    kind = "scaled_dot_product_attention"
    _, three = _run(_build(kind, [shape] * 3, shape), x, x, x)
    _, one = _run(_build(kind, [shape], shape), x)
    (together,) = one([Pull(0.0)])
    assert math.exp(together.log) == pytest.approx(sum(math.exp(p.log) for p in three([Pull(0.0)])))
    opposite = Signal(np.array(0.5), 0.1, -0.2)
    free = Signal(np.array(0.5), 0.1, 0.0)
    _, a = _run(_build(kind, [shape] * 3, shape), opposite, opposite, opposite)
    _, b = _run(_build(kind, [shape] * 3, shape), free, free, free)
    assert [p.log for p in a([Pull(0.0)])] == pytest.approx([p.log for p in b([Pull(0.0)])])
