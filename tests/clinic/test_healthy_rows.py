"""Nothing is said of rows of zeros under a normalisation by hand: of padding, and of units that are off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.clinic.designs import Design, classes, list_loud
from torch import Tensor, nn
from torch.nn import functional as F

WAYS: dict[str, Any] = {
    "normalize": lambda h: F.normalize(h, dim=-1),
    "clamped": lambda h: h / h.norm(dim=-1, keepdim=True).clamp(min=1e-12),
    "epsilon": lambda h: h / (h.norm(dim=-1, keepdim=True) + 1e-8),
    "rsqrt": lambda h: h * h.square().sum(-1, keepdim=True).clamp(min=1e-12).rsqrt(),
    "RMS": lambda h: h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6),
}
PLACES = ("padding", "padding, normalised first", "units that are off", "all units off")


class Normalised(nn.Module):
    """Four layers with a normalisation by hand between them, and some rows of zeros below it."""

    def __init__(self, way: Any, place: str) -> None:
        super().__init__()
        self.way, self.place = way, place
        bias = place in ("padding, normalised first", "units that are off")
        self.a, self.b = nn.Linear(10, 32, bias=bias), nn.Linear(32, 32, bias=bias)
        self.c, self.head = nn.Linear(32, 32), nn.Linear(32, 4)
        if place == "units that are off":
            with torch.no_grad():
                self.b.bias.sub_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        if self.place.endswith("first"):
            h = self.b(torch.tanh(self.a(self.way(x))))
        elif self.place == "padding":
            h = self.way(self.b(torch.tanh(self.a(x))))
        else:
            h = self.way(torch.relu(self.b(torch.relu(self.a(x)))))
        y: Tensor = self.head(torch.relu(self.c(h)))
        return y


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_rows_of_zeros_are_no_growth_over_the_depth(way: Any, place: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 10)
    x[:6] = 0
    design = Design(Normalised(way, place), (x, classes(40)), nn.CrossEntropyLoss())
    assert list_loud(design) == []


@pytest.mark.parametrize("way", ["clamped", "RMS"])
def test_growth_under_a_normalisation_is_still_found(way: str) -> None:
    """The weights below it are too large, with zero rows and without."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(8):
        layers += [nn.Linear(32, 32, bias=False), nn.ReLU()]
        nn.init.normal_(layers[-2].weight, std=4 * 32**-0.5)

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = nn.Sequential(*layers), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(WAYS[way](self.body(x)))
            return y

    x = torch.randn(40, 32)
    x[:6] = 0
    said = list_loud(Design(Deep(), (x, classes(40)), nn.CrossEntropyLoss()))
    assert said
    assert said[0].startswith("INI002")
