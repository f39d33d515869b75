"""Coordinates that are expected under a softmax: along its own axis, and along another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish

ROWS, COLUMNS = torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 8)
GRID = ROWS[:, None].expand(6, 8)


def by_margins(p: Tensor) -> Tensor:
    return torch.stack([(p.sum(3) * ROWS).sum(-1), (p.sum(2) * COLUMNS).sum(-1)], -1)


def flatten(h: Tensor) -> Tensor:
    return h.flatten(2).softmax(-1).view_as(h)


WRONG: dict[str, Any] = {
    "over the channels": lambda h: by_margins(h.softmax(1)),
    "of a grid": lambda h: (h.softmax(1) * GRID).sum((2, 3)),
    "of one side": lambda h: (h[:, :, 0].softmax(1) * COLUMNS).sum(-1),
}
RIGHT: dict[str, Any] = {
    "over the places": lambda h: by_margins(flatten(h)),
    "over the bins": lambda h: (h[:, :, 0].softmax(-1) * COLUMNS).sum(-1),
    "bins before places": lambda h: (h.softmax(1) * torch.arange(5.0)[:, None, None]).sum(1),
    "soft assignments": lambda h: (h.softmax(1) * (COLUMNS > 0)).sum((2, 3)),
}


class Points(nn.Module):
    """A convolution and what is read off its five maps."""

    def __init__(self, read: Any) -> None:
        super().__init__()
        self.maps, self.read = nn.Conv2d(2, 5, 3, padding=1), read

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.read(self.maps(x)).flatten(1).sum(1)
        return out


@pytest.mark.parametrize("name", [*WRONG, *RIGHT])
def test_coordinates_meet_weights_of_their_own_axis(name: str) -> None:
    torch.manual_seed(0)
    batch = torch.randn(4, 2, 6, 8), torch.randn(4)
    found = unvanish.check(
        Points({**WRONG, **RIGHT}[name]), batch, nn.MSELoss(), confirm=False, select=["OUT007"]
    )
    assert found.codes() == (("OUT007",) if name in WRONG else ())
