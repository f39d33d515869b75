"""Output and targets that are flattened in another order, and what only looks so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.probes.misaligned import is_misaligned

F = nn.functional
LOSSES: dict[str, tuple[Any, bool]] = {
    "labels time first": (lambda o, y: F.cross_entropy(o.reshape(-1, 5), y.reshape(-1)), True),
    "transposed": (lambda o, y: F.cross_entropy(o.reshape(-1, 5), y.T.reshape(-1)), False),
    "the output turned": (
        lambda o, y: F.cross_entropy(o.transpose(0, 1).reshape(-1, 5), y.reshape(-1)),
        False,
    ),
    "never flattened": (lambda o, y: F.cross_entropy(o.permute(1, 2, 0), y), False),
    "numbers": (lambda o, y: F.mse_loss(o[..., 0].reshape(-1), y.float().reshape(-1)), False),
}


@pytest.mark.parametrize("how", LOSSES)
def test_rows_meet_their_own_targets(how: str) -> None:
    torch.manual_seed(0)
    loss, wrong = LOSSES[how]
    batch = torch.randn(12, 9, 8), torch.randint(0, 5, (9, 12))
    found = unvanish.check(nn.Sequential(nn.Linear(8, 5)), batch, loss, confirm=False).walk()
    own = [f for f in found if f.code == "OUT008"]
    assert bool(own) == wrong
    assert not own or "(12, 9)" in own[0].cause


def test_axes_of_equal_length_or_of_one_tell_nothing() -> None:
    assert is_misaligned((12, 9), (9, 12)) and is_misaligned((4, 6, 5), (4, 5, 6))
    assert not is_misaligned((12, 12), (12, 12)) and not is_misaligned((12, 1), (1, 12))
    assert not is_misaligned((12, 9), (108,)) and not is_misaligned((12, 9), (4, 27))


def test_a_column_of_scores_against_labels_time_first() -> None:
    torch.manual_seed(0)

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(o.view(-1), y.view(-1))

    batch = torch.randn(11, 14, 6), (torch.rand(14, 11) > 0.5).float()
    found = unvanish.check(nn.Sequential(nn.Linear(6, 1)), batch, loss, confirm=False)
    assert found.codes()[0] == "OUT008"
