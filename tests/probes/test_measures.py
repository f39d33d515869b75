"""Statistics of activations: the same one by one and together, and no more is converted than is read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unvanish.probes import measures
from unvanish.probes.measures import activation_stats
from unvanish.probes.together import Together

G = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("shape", [(8, 32, 64), (4, 100, 16), (20, 7, 5), (3, 2, 4), (16, 9), (6, 3, 5, 5)])
def test_activations_are_read_the_same_together_and_one_by_one(shape: tuple[int, ...]) -> None:
    piled, tokens, read = Together(shape[0]), len(shape) == 3, []
    for size in (0.0, 1.0, 1e-20, 1e10):
        x = size * torch.randn(shape, generator=G)
        x[:, 0] = 0  # of all samples alike
        stats: dict[str, float] = {}
        assert piled.take(x, stats, tokens)
        read.append((stats, activation_stats(x, shape[0], tokens)))
    piled.settle()
    for together, alone in read:
        assert together.keys() == alone.keys()
        assert together == pytest.approx(alone, rel=1e-9, abs=1e-12, nan_ok=True)


def test_tokens_by_a_plain_loop() -> None:
    x = torch.randn(5, 11, 6, generator=G, dtype=torch.float64)
    unit = x / x.norm(dim=-1, keepdim=True)
    pairs = [float(unit[b, i] @ unit[b, j]) for b in range(5) for i in range(11) for j in range(11) if i != j]
    assert measures.token_cosine(x) == pytest.approx(sum(pairs) / len(pairs))
    assert math.isnan(measures.token_cosine(torch.zeros(2, 3, 4)))


def test_of_a_long_sequence_some_tokens_are_converted(monkeypatch: Any) -> None:
    taken: list[torch.Size] = []
    convert = measures._numbers

    def note(x: Tensor) -> Any:
        taken.append(x.shape)
        return convert(x)

    monkeypatch.setattr(measures, "_numbers", note)
    measures.token_cosine(torch.randn(16, 5000, 4, generator=G))
    assert [s.numel() <= 8 * 64 * 4 for s in taken] == [True]
