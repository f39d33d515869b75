"""Attention at random logits: exact cases, the random-energy limit, and outputs made of real values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unvanish.theory import attention


@pytest.mark.parametrize("tokens", [2, 16, 1000])
def test_equal_logits_attend_to_all_alike(tokens: int) -> None:
    found = attention.weights(tokens, 0.0)
    assert found.squares == pytest.approx(1 / tokens)
    assert found.entropy == pytest.approx(math.log(tokens))


def test_one_token_attends_to_itself() -> None:
    for tokens in (0, 1):
        assert attention.weights(tokens, 3.0) == attention.AttentionWeights(1.0, 0.0)


def test_small_logits_follow_the_expansion() -> None:
    found = attention.weights(4096, 0.25)
    assert found.squares == pytest.approx(math.exp(0.25) / 4096, rel=0.02)
    assert found.entropy == pytest.approx(math.log(4096) - 0.125, rel=0.002)


def test_two_tokens_are_a_sigmoid_of_a_normal_number() -> None:
    x = math.sqrt(2 * 1.5) * np.random.default_rng(5).standard_normal(400_000)
    p = 1 / (1 + np.exp(-x))
    found = attention.weights(2, 1.5)
    assert found.squares == pytest.approx(float((p**2 + (1 - p) ** 2).mean()), rel=0.02)
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert found.entropy == pytest.approx(float(entropy.mean()), rel=0.03)


def test_huge_logits_attend_to_one_key() -> None:
    found = attention.weights(32, 1e8)
    assert found.squares == pytest.approx(1.0, abs=1e-3)
    assert 0.0 <= found.entropy < 1e-3


def test_many_tokens_have_enough_draws() -> None:
    assert attention.weights(60_000, 1.0).squares == pytest.approx(math.e / 60_000, rel=0.03)


def test_a_variance_is_read_to_three_digits_and_kept() -> None:
    assert attention.weights(8, 1.0001) is attention.weights(8, 1.0)
    assert attention.weights(8, 1.004) is attention.weights(8, 1.0)
    assert attention.weights(8, 1.01) is not attention.weights(8, 1.0)


@pytest.mark.parametrize("likeness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("variance", [0.0, 2.0])
def test_mixed_values_are_those_of_random_tokens(likeness: float, variance: float) -> None:
    rng, tokens, width = np.random.default_rng(2), 24, 4000
    common, own = rng.standard_normal(width), rng.standard_normal((tokens, width))
    values = math.sqrt(likeness) * common + math.sqrt(1 - likeness) * own
    p = np.exp(math.sqrt(variance) * rng.standard_normal((400, tokens)))
    out = p / p.sum(1, keepdims=True) @ values
    power = float((out**2).mean())
    cosine = float(((out.sum(0) ** 2).sum() - (out**2).sum()) / (400 * 399 * width)) / power
    found = attention.mix_values(tokens, variance, likeness)
    assert found == pytest.approx((power, cosine), rel=0.08)


def test_without_power_tokens_are_alike() -> None:
    assert attention.mix_values(8, 0.0, -1 / 7) == pytest.approx((0.0, 1.0), abs=1e-9)
    assert attention.mix_values(1, 2.0, 0.4) == pytest.approx((1.0, 1.0))
    assert attention.mix_values(8, 0.0, 0.4)[1] <= 1.0
    power, likeness = attention.mix_values(8, 0.0, -0.5)
    assert (power, likeness) == pytest.approx((-0.3125, 1.0))
