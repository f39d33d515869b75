"""Likeness of tokens by its definition, norms of large tensors; no more is converted than is read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unvanish.probes import measures
from unvanish.probes.measures import PIECE, norms

G = torch.Generator().manual_seed(0)


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


@pytest.mark.parametrize("spoiled", [None, math.nan, math.inf])
def test_norms_of_large_tensors_are_read_in_parts(spoiled: float | None) -> None:
    torch.manual_seed(0)
    large, small = torch.randn(3, PIECE), torch.randn(5)
    if spoiled is not None:
        large[2, 7] = spoiled
    for x, found in zip((large, large.mT, small), norms([large, large.mT, small]), strict=True):
        oracle = float(x.double().norm())
        assert found == pytest.approx(oracle, rel=1e-12, nan_ok=True)
