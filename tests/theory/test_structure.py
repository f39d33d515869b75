"""Padding, normalisation, residual sums, attention: closed forms against what torch does."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from unvanish.theory import attention, convolution, normalisation, residual
from unvanish.theory.convolution import Geometry


@given(
    st.integers(1, 4),
    st.integers(4, 9),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_the_maps_of_positions_are_a_convolution_and_its_transpose(
    kernel: int, size: int, stride: int, pad: int, dilation: int, flat: bool
) -> None:
    if size + 2 * pad < dilation * (kernel - 1) + 1:
        return
    rng = np.random.default_rng(0)
    taps, power = rng.random((kernel, kernel)), rng.random((size, size))
    geometry = Geometry((stride,) * 2, ((pad, pad),) * 2, (dilation,) * 2)

    def ours(x: Tensor) -> Tensor:
        weight = torch.from_numpy(taps)[None, None]
        return functional.conv2d(x[None, None], weight, stride=stride, padding=pad, dilation=dilation)[0, 0]

    x = torch.from_numpy(power).requires_grad_()
    out = ours(x)
    assert np.allclose(convolution.forward(taps, power, geometry), out.detach().numpy())
    back = rng.random(out.shape)
    (expected,) = torch.autograd.grad(out, x, torch.from_numpy(back))
    assert np.allclose(convolution.backward(taps, back, power.shape, geometry), expected.numpy())


def test_circular_padding_keeps_everything() -> None:
    taps = np.full((3, 3), 1 / 9)
    geometry = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), circular=True)
    x = np.random.default_rng(0).random((6, 6))
    assert convolution.forward(taps, x, geometry).sum() == pytest.approx(x.sum())
    assert convolution.backward(taps, x, x.shape, geometry).sum() == pytest.approx(x.sum())


def test_zero_padding_keeps_the_largest_eigenvalue() -> None:
    assert convolution.retained_share(3, 8, 1) == pytest.approx((1 + 2 * math.cos(math.pi / 9)) / 3)
    assert convolution.retained_share(3, 8) == pytest.approx(0.9212, abs=1e-4)
    assert convolution.retained_share(3, 32) == pytest.approx(0.9940, abs=1e-4)
    assert convolution.retained_share(1, 8) == 1.0


def test_batch_norm_explodes_by_a_known_rate() -> None:
    assert normalisation.batch_norm_gain("relu") == pytest.approx(0.5 * math.log(math.pi / (math.pi - 1)))
    assert normalisation.batch_norm_gain("identity") == pytest.approx(0.0, abs=1e-9)
    for name in ("tanh", "gelu", "sigmoid", "elu"):
        assert normalisation.batch_norm_gain(name) > 0  # whatever the activation


def test_layer_norm_before_relu_keeps_the_gradient() -> None:
    assert normalisation.layer_norm_gain("relu") == pytest.approx(0.0, abs=1e-9)
    assert normalisation.layer_norm_gain("relu", before=False) > 0.15


def test_streams() -> None:
    plain, before, after = (list(residual.stream(20, norm=n)) for n in ("none", "pre", "post"))
    assert plain[-1].power == pytest.approx(2.0**20)
    assert before[-1].power == pytest.approx(21.0)
    assert math.prod(b.gain for b in before) == pytest.approx(21.0)
    assert after[-1].power == pytest.approx(1.0)
    assert after[-1].identity == pytest.approx(2.0**-20)
    assert list(residual.stream(8, alpha=1.0, branch=0.0))[-1].gain == 1.0
    with pytest.raises(ValueError, match="use none, pre or post"):
        next(residual.stream(3, norm="sandwich"))


@pytest.mark.parametrize(("tokens", "variance"), [(16, 0.0), (64, 0.5), (64, 4.0)])
def test_attention_weights_at_random_logits(tokens: int, variance: float) -> None:
    found = attention.weights(tokens, variance)
    p = torch.softmax(variance**0.5 * torch.randn(20_000, tokens, dtype=torch.float64), 1)
    assert found.squares == pytest.approx(float(p.square().sum(1).mean()), rel=0.08)
    assert found.entropy == pytest.approx(float(-(p * p.log()).sum(1).mean()), rel=0.05)


def test_attention_makes_tokens_alike() -> None:
    power, likeness = attention.mix_values(32, 0.0, 0.0)
    assert (power, likeness) == pytest.approx((1 / 32, 1.0))
    for a, b in itertools.pairwise([attention.mix_values(32, v, 0.1)[1] for v in (0.0, 2.0, 8.0)]):
        assert b < a
