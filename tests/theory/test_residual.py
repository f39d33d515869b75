"""Streams against wide random networks' recursions worked out by hand, and products over the blocks."""

from __future__ import annotations

import math

import pytest

from unvanish.theory.residual import stream


def test_without_a_norm_each_block_multiplies() -> None:
    for k, block in enumerate(stream(5, branch=0.5, backward=0.25, alpha=2.0), 1):
        assert block.power == pytest.approx(4.5**k)
        assert block.gain == pytest.approx(4.25)
        assert block.identity == pytest.approx((4 / 4.25) ** k)


def test_with_a_norm_before_the_branch_adds() -> None:
    for k, block in enumerate(stream(6, norm="pre", branch=0.5), 1):
        before = 1 + 0.5 * (k - 1)
        assert block.power == pytest.approx(before + 0.5)
        assert block.gain == pytest.approx(1 + 0.5 / before)
        assert block.identity == pytest.approx(1 / (1 + 0.5 * k))


def test_a_scaled_skip_with_a_norm_before() -> None:
    first, second = stream(2, norm="pre", branch=3.0, backward=2.0, alpha=0.5)
    assert (first.power, first.gain, first.identity) == pytest.approx((3.25, 2.25, 1 / 9))
    gain = 0.25 + 2 / 3.25
    assert (second.power, second.gain) == pytest.approx((0.8125 + 3, gain))
    assert second.identity == pytest.approx(0.25 / gain / 9)


@pytest.mark.parametrize(("branch", "alpha"), [(1.0, 1.0), (0.3, 1.0), (2.0, 1.5)])
def test_with_a_norm_after_the_length_stays(branch: float, alpha: float) -> None:
    for k, block in enumerate(stream(5, norm="post", branch=branch, alpha=alpha), 1):
        assert block.power == pytest.approx(1.0)
        assert block.gain == pytest.approx(1.0)
        assert block.identity == pytest.approx((alpha**2 / (alpha**2 + branch)) ** k)
    (block,) = stream(1, norm="post", branch=branch, backward=0.1, alpha=alpha)
    assert block.gain == pytest.approx((alpha**2 + 0.1) / (alpha**2 + branch))


def test_defaults_and_ends() -> None:
    assert [b.power for b in stream(3)] == [2.0, 4.0, 8.0]
    assert list(stream(0)) == []
    assert [b.identity for b in stream(3, branch=1.0, backward=0.0)] == [1.0, 1.0, 1.0]
    assert math.prod(b.gain for b in stream(4, norm="pre")) == pytest.approx(5.0)
    with pytest.raises(ValueError, match="norm is 'batch'"):
        list(stream(1, norm="batch"))
