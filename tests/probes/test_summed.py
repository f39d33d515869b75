"""A sum over the batch is a note, whatever its size and however it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(64, 8, generator=G), torch.randint(0, 4, (64,), generator=G)
Z = torch.randn(64, 4, generator=G)
Loss = Callable[[Tensor, Any], Tensor]


def one_sum(o: Tensor, y: Any) -> Tensor:
    return functional.cross_entropy(o, y[0], reduction="sum")


SUMS: dict[str, Loss] = {
    "by name": one_sum,
    "squares": lambda o, y: ((o - y[1]) ** 2).sum(),
    "unreduced": lambda o, y: functional.cross_entropy(o, y[0], reduction="none").sum(),
    "picked": lambda o, y: -o.log_softmax(1)[torch.arange(64), y[0]].sum(),
    "times a million": lambda o, y: 1e6 * one_sum(o, y),
    "times a millionth": lambda o, y: 1e-6 * one_sum(o, y),
}
MEANT: dict[str, Loss] = {
    "mean": lambda o, y: functional.cross_entropy(o, y[0]),
    "divided by samples": lambda o, y: one_sum(o, y) / 64,
    "divided by tokens": lambda o, y: one_sum(o, y) / (y[0] > 0).sum(),
    "masked": lambda o, y: (functional.cross_entropy(o, y[0], reduction="none") * (y[0] > 0)).sum(),
    "summed over features": lambda o, y: (o - y[1]).square().sum(1).mean(),
    "two sums": lambda o, y: one_sum(o, y) + (o - y[1]).square().sum(),
    "rewards": lambda o, y: -(o.log_softmax(1).gather(1, y[0][:, None])[:, 0] * y[1][:, 0]).sum(),
    "tasks": lambda o, y: torch.stack(
        [functional.cross_entropy(o, y[0]), functional.mse_loss(o, y[1])]
    ).sum(),
}


def judge(loss: Loss, **options: Any) -> tuple[str, ...]:
    torch.manual_seed(0)
    found = unvanish.check(nn.Linear(8, 4), (X, (Y, Z)), loss, confirm=False, select=["LOS003"], **options)
    assert found.codes() == ()
    return found.codes("note")


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_over_the_batch_is_noted(name: str) -> None:
    assert judge(SUMS[name]) == ("LOS003",)


@pytest.mark.parametrize("name", MEANT)
def test_averages_and_weighted_sums_are_left_alone(name: str) -> None:
    assert judge(MEANT[name]) == ()


@pytest.mark.parametrize(("kind", "codes"), [(torch.optim.SGD, ("LOS003",)), (torch.optim.Adam, ())])
def test_an_optimizer_that_does_not_see_the_size_needs_no_note(kind: Any, codes: tuple[str, ...]) -> None:
    net = nn.Linear(8, 4)
    found = unvanish.check(
        net, (X, (Y, Z)), one_sum, confirm=False, select=["LOS003"], optimizer=kind(net.parameters(), lr=1e-4)
    )
    assert found.codes("note") == codes


def test_a_few_samples_are_no_large_batch() -> None:
    loss = nn.CrossEntropyLoss(reduction="sum")
    found = unvanish.check(nn.Linear(8, 4), (X[:8], Y[:8]), loss, confirm=False, select=["LOS003"])
    assert found.codes("note") == ()
