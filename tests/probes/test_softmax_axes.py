"""A softmax along another axis than the sum that its weights make, in several notations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish


class Attentive(nn.Module):
    """Two heads over tokens; `mix` makes the values' mean of scores (B, H, T, T) and values (B, H, T, D)."""

    def __init__(self, mix: Any) -> None:
        super().__init__()
        self.p, self.o, self.mix = nn.Linear(12, 36), nn.Linear(12, 3), mix

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.p(x).view(len(x), -1, 3, 2, 6).permute(2, 0, 3, 1, 4)
        made: Tensor = self.mix(q @ k.mT / 6**0.5, v)
        out: Tensor = self.o((x + made.transpose(1, 2).flatten(2)).mean(1))
        return out


def flat(axis: int) -> Any:
    def mix(scores: Tensor, v: Tensor) -> Tensor:
        b, h, t, d = v.shape
        weights = scores.flatten(0, 1).softmax(axis)
        return torch.bmm(weights, v.flatten(0, 1)).view(b, h, t, d)

    return mix


SICK: dict[str, Any] = {
    "over the heads": lambda s, v: s.softmax(1) @ v,
    "over the queries": lambda s, v: s.softmax(-2) @ v,
    "over the batch's heads": flat(0),
    "by einsum": lambda s, v: torch.einsum("bhij,bhjd->bhid", s.softmax(2), v),
    "by hand": lambda s, v: (s.exp() / s.exp().sum(2, keepdim=True)) @ v,
    "values first": lambda s, v: torch.einsum("bhjd,bhij->bhid", v, s.softmax(2)),
    "transposed after it": lambda s, v: s.softmax(-1).transpose(-1, -2) @ v,
}
SOUND: dict[str, Any] = {
    "by hand": lambda s, v: (w := s.exp()).div(w.sum(-1, keepdim=True)) @ v,
    "over the keys": lambda s, v: s.softmax(-1) @ v,
    "flattened": flat(-1),
    "by einsum": lambda s, v: torch.einsum("bhij,bhjd->bhid", s.softmax(3), v),
    "transposed and back": lambda s, v: s.transpose(-1, -2).softmax(-2).transpose(-1, -2) @ v,
    "queries that compete": lambda s, v: (w := s.softmax(-2)).div(w.sum(-1, keepdim=True)) @ v,
    "twice": lambda s, v: (s.softmax(-1) * s.softmax(-2)) @ v,
}


def codes(mix: Any) -> list[str]:
    torch.manual_seed(0)
    batch = torch.randn(8, 5, 12), torch.randint(0, 3, (8,))
    return [f.code for f in unvanish.check(Attentive(mix), batch, nn.CrossEntropyLoss()).at_least("warning")]


@pytest.mark.parametrize("name", SICK)
def test_another_axis_is_named(name: str) -> None:
    assert "OUT007" in codes(SICK[name])


@pytest.mark.parametrize("name", SOUND)
def test_the_right_axis_is_left_alone(name: str) -> None:
    assert "OUT007" not in codes(SOUND[name])
