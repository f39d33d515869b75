"""Views in place of transposes, by their shapes and in models; what only looks so is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.probes.axes_swapped import is_swapped

SWAPPED = [
    ((8, 32, 15), (8, 15, 32)),
    ((8, 7, 16), (8, 4, 7, 4)),
    ((8, 24, 4, 4), (8, 16, 24)),
    ((8, 12, 12, 3), (8, 3, 12, 12)),
    ((8, 3, 12, 10), (8, 12, 10, 3)),
    ((8, 4, 10, 6), (8, 10, 24)),
]
KEPT = [
    ((8, 7, 16), (8, 7, 4, 4)),
    ((8, 16, 5, 5), (8, 16, 25)),
    ((8, 16, 5, 6), (8, 4, 4, 5, 6)),
    ((8, 9, 10), (8, 10, 9)),
    ((8, 1, 16), (8, 16, 1)),
    ((8, 32, 6, 6), (8, 144, 8)),
    ((8, 12, 12), (8, 12, 12)),
    ((8, 240), (8, 15, 16)),
    ((56, 16), (8, 7, 16)),
    ((8, 10, 4, 6), (8, 10, 24)),
    ((8, 5, 5, 6), (8, 25, 6)),
]


@pytest.mark.parametrize(("before", "after"), SWAPPED)
def test_axes_in_another_order(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert is_swapped(before, after)


@pytest.mark.parametrize(("before", "after"), KEPT)
def test_axes_that_are_split_or_joined_are_kept(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert not is_swapped(before, after)


class Steps(nn.Module):
    """A layer at each of nine steps, something in the middle, and a mean."""

    def __init__(self, turn: Any) -> None:
        super().__init__()
        self.first, self.last, self.turn = nn.Linear(6, 16), nn.LazyLinear(3), turn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.turn(torch.tanh(self.first(x)))).mean(1)
        return out


def shift(h: Tensor) -> Tensor:
    """Rows moved against each other, as relative positions are."""
    b, t, d = h.shape
    return nn.functional.pad(h, (1, 0)).view(b, d + 1, t)[:, 1:].mT


def merge(h: Tensor, turn: bool) -> Tensor:
    """Four heads of the samples' rows, put together again."""
    b, t, d = h.shape
    heads = h.view(b, t, 4, d // 4).transpose(1, 2).reshape(b * 4, t, d // 4) * 2
    return heads.view(b, 4, t, d // 4).transpose(1, 2).reshape(b, t, d) if turn else heads.view(b, t, d)


TURNS: dict[str, tuple[Any, bool]] = {
    "viewed": (lambda h: h.reshape(len(h), 16, 9), True),
    "heads merged by a view": (lambda h: merge(h, turn=False), True),
    "heads merged": (lambda h: merge(h, turn=True), False),
    "transposed": (lambda h: h.mT, False),
    "moved against each other": (shift, False),
    "into windows": (lambda h: h.reshape(len(h), 3, 3, 16).mean(2), False),
}


@pytest.mark.parametrize("how", TURNS)
def test_a_view_in_a_model(how: str) -> None:
    torch.manual_seed(0)
    turn, wrong = TURNS[how]
    net, x = Steps(turn), torch.randn(12, 9, 6)
    net(x)
    found = unvanish.check(net, (x, torch.randint(0, 3, (12,))), nn.CrossEntropyLoss(), confirm=False)
    assert ("GRF010" in found.codes()) == wrong


def test_heads_of_torch_s_own_attention_are_its_own_business() -> None:
    """As many samples as numbers a head: its views look like swapped ones."""
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0)
    found = unvanish.check(net, (torch.randn(8, 8, 16), torch.randn(8, 8, 16)), nn.MSELoss(), confirm=False)
    assert "GRF010" not in found.codes()
