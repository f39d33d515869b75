"""Signals that become exactly zero on their way, before something that passes nothing there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import unvanish


class Centred(nn.Module):
    """Channels less their mean over time, of which pooling leaves some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.first, self.last, self.steps = nn.Conv1d(2, 12, 3), nn.Linear(12, 3), steps

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.adaptive_avg_pool1d(self.first(x), self.steps)
        h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        out: Tensor = self.last(torch.relu(h).mean(-1))
        return out


@pytest.mark.parametrize("steps", [1, 5])
def test_numbers_less_their_own_mean(steps: int) -> None:
    torch.manual_seed(0)
    batch = torch.randn(16, 2, 20), torch.randint(0, 3, (16,))
    found = unvanish.check(Centred(steps), batch, nn.CrossEntropyLoss()).findings
    if steps > 1:
        assert not found
        return
    assert found[0].code == "GRF004"
    assert "gives only zeros" in found[0].cause and "test_blank.py:" in found[0].cause
    assert found[0].remedies[0].cure == "normalise-over-more"


def test_zero_weights_are_left_to_whom_they_concern() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.zeros_(net[2].weight), nn.init.zeros_(net[2].bias)
    batch = torch.randn(16, 6), torch.randint(0, 3, (16,))
    found = unvanish.check(net, batch, nn.CrossEntropyLoss()).findings
    assert not any("gives only zeros" in f.cause for f in found)
