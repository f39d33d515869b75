"""Powers below one of probabilities that have all but reached zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish


def focal(power: float, added: float) -> Any:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        p = torch.sigmoid(z)
        return -((p + added) ** power * (1 - y) * torch.log(1 - p + 1e-8)).mean()

    return loss


@pytest.mark.parametrize(
    ("bias", "power", "added", "near"),
    [
        (-60.0, 0.5, 0.0, True),
        (-60.0, 0.5, 1e-8, False),
        (-60.0, 2.0, 0.0, False),
        (0.0, 0.5, 0.0, False),
    ],
)
def test_a_power_below_one_of_a_saturated_probability(
    bias: float, power: float, added: float, near: bool
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    net[2].bias.data.fill_(bias)
    batch = torch.randn(32, 8), (torch.rand(32, 1) > 0.5).float()
    found = unvanish.check(net, batch, focal(power, added), confirm=False)
    assert ("NUM001" in found.codes()) == near
    assert not near or found.codes()[0] == "NUM001"
