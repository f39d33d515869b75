"""Small activations read together say what each says alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unvanish.probes.measures import activation_stats
from unvanish.probes.together import LARGE, Together

MISSING = (
    "a statistic of activations is measured in two files, and one lacks it: activation_stats of "
    "probes/measures.py reads large activations, _read of probes/together.py small ones"
)


def together(xs: list[Tensor], batch: int) -> list[dict[str, float]]:
    """The statistics of activations that waited for each other; the tensors are overwritten before."""
    pile, found = Together(batch), []
    for x in xs:
        found.append(stats := {})
        assert pile.take(x, stats)
        x.zero_()
    pile.settle()
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([1e-30, 1.0, 1e20])), min_size=1, max_size=9),
    st.integers(0, 1000),
)
def test_each_is_read_as_it_is_alone(shapes: list[tuple[int, float]], seed: int) -> None:
    torch.manual_seed(seed)
    xs = [scale * (torch.randn(6, width, 4) + 0.3) for width, scale in shapes]
    alone = [activation_stats(x, 6) for x in xs]
    for one, other in zip(together([x.clone() for x in xs], 6), alone, strict=True):
        assert set(one) == set(other), MISSING
        assert [one[k] for k in sorted(one)] == pytest.approx([other[k] for k in sorted(one)], rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_does_not_spoil_its_neighbours(bad: float) -> None:
    torch.manual_seed(0)
    clean, broken = torch.randn(4, 8), torch.randn(4, 8)
    broken[1, 2] = bad
    found = together([clean.clone(), broken, torch.zeros(4, 8)], 4)
    assert found[0]["cosine"] == pytest.approx(activation_stats(clean, 4)["cosine"])
    assert "cosine" not in found[1] and "cosine" not in found[2]


def test_what_is_large_is_left_to_be_read_alone() -> None:
    assert not Together(2).take(torch.zeros(2, LARGE), {})


@pytest.mark.parametrize("shape", [(8, 32, 64), (4, 100, 16), (20, 7, 5), (3, 2, 4)])
def test_sequences_of_tokens_are_read_as_each_is_alone(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    piled, read = Together(shape[0]), []
    for size in (0.0, 1.0, 1e-20, 1e10):
        x = size * torch.randn(shape, generator=generator)
        x[:, 0] = 0  # of all samples alike
        stats: dict[str, float] = {}
        assert piled.take(x, stats, True)
        read.append((stats, activation_stats(x, shape[0], True)))
    piled.settle()
    for together, alone in read:
        assert together.keys() == alone.keys()
        assert together == pytest.approx(alone, rel=1e-9, abs=1e-12, nan_ok=True)
