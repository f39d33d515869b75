"""INP003: equal samples, columns that say nothing, padding in a mean; and what only looks like it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Finding

N = 48


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


X = rand(N, 8)
Y = torch.arange(N) % 3


def judge(model: nn.Module, x: Any, y: Tensor = Y) -> list[Finding]:
    found = [*unvanish.check(model, (x, y), F.cross_entropy, confirm=False).walk()]
    return [f for f in found if f.code == "INP003"]


def build(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 3))


class Bag(nn.Module):
    """Embeds words, or takes vectors, at places; what is left is averaged in one of several ways."""

    def __init__(self, how: str, places: int = 60) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.hidden, self.head = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.places, self.how = nn.Parameter(torch.randn(places, 16)), how

    def forward(self, words: Tensor) -> Tensor:
        h = torch.relu(self.hidden(self.embed(words) + self.places[: words.shape[1]]))
        there = (words != 0).unsqueeze(-1)
        if self.how == "mask":
            h = (h * there).sum(1) / there.sum(1)
        elif self.how == "axis":
            h = h.transpose(1, 2).mean(-1)
        else:
            h = h.mean(1)
        out: Tensor = self.head(h)
        return out


def pad(words: int, positions: int = 60, left: bool = False) -> Tensor:
    found = torch.zeros(N, positions, dtype=torch.long)
    filled = torch.randint(1, 50, (N, words), generator=torch.Generator().manual_seed(2))
    found[:, slice(-words, None) if left else slice(words)] = filled
    return found


@pytest.mark.parametrize("x", [torch.ones(N, 8), rand(1, 8).repeat(N, 1), torch.zeros(N, 8)])
def test_equal_samples_of_different_targets_are_a_warning(x: Tensor) -> None:
    (found,) = judge(build(8), x)
    assert found.severity == "warning" and "their targets differ" in found.cause


def test_equal_samples_of_equal_targets_are_a_note() -> None:
    (found,) = judge(build(8), torch.ones(N, 8), torch.ones_like(Y))
    assert found.severity == "note"


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.cat([X[:, :1], torch.full((N, 7), 3.0)], 1), "are constant"),
        (torch.cat([X[:, :1].repeat(1, 12), X[:, 1:4]], 1), "repeat another column"),
    ],
)
def test_columns_that_say_nothing_are_counted(x: Tensor, words: str) -> None:
    (found,) = judge(build(x.shape[1]), x)
    assert found.severity == "warning" and words in found.cause


@pytest.mark.parametrize("how", ["mean", "axis"])
@pytest.mark.parametrize("left", [False, True])
def test_padding_that_dominates_a_mean_is_named(how: str, left: bool) -> None:
    (found,) = judge(Bag(how), pad(4, left=left))
    assert found.severity == "warning" and "93% of the positions" in found.cause
    assert "mask" in found.remedies[0].why


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (Bag("mask"), pad(4)),
        (Bag("mean"), pad(20)),
        (Bag("mean"), pad(60)),
        (build(8), X),
        (build(8), torch.cat([X[:, :7], torch.ones(N, 1)], 1)),
        (build(16), torch.cat([X, X], 1)),
        (build(40), F.one_hot(torch.arange(N) % 40, 40).float()),
        (build(60), (rand(N, 60) > 2).float()),
        (build(20), torch.cat([X, torch.zeros(N, 12)], 1)),
        (build(300), (rand(6, 300) > 0.9).float()[torch.arange(N) % 6] * rand(N, 1).abs()),
    ],
    ids=["mask", "a third", "full", "table", "ones", "twice", "one-hot", "words", "zeros", "few pictures"],
)
def test_what_says_something_is_silent(model: nn.Module, x: Tensor) -> None:
    assert judge(model, x) == []
