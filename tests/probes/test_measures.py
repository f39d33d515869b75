"""Likeness of tokens: by its definition, and no more is converted than is read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unvanish.probes import measures

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
