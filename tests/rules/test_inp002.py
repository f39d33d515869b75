"""INP002, and the standardisation of each feature: tables, channels and steps in natural units, and their
look-alikes.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish
from unvanish.cures import cures
from unvanish.cures.standardise_input import Standardise

N = 48
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 6, generator=GENERATOR)
Y = (X @ torch.randn(6, 4, generator=GENERATOR)).argmax(1)
UNITS = torch.tensor([1.0, 2e4, 0.02, 40.0, 1.0, 1.0])
ENTROPY = nn.CrossEntropyLoss()


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def build(width: int = 6, *before: nn.Module) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(*before, nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 4))


def build_images(channels: int, *before: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    pooled = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return nn.Sequential(*before, nn.Conv2d(channels, 8, 3), *pooled)


class Last(nn.Module):
    """An LSTM read at its last step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells, self.head = nn.LSTM(6, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.cells(x)[0][:, -1])
        return out


class OwnScale(nn.Module):
    """A net that divides by the units itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x / UNITS)
        return out


DEPTH = rand(N, 4, 10, 10) * torch.tensor([1.0, 1.0, 1.0, 3000.0])[:, None, None]
SPIKED = X.clone()
SPIKED[3, 2] = 1e5
DIGITS = rand(N, 784) * (rand(N, 784) < 0.2)
DIGITS[:, :200] = 0
DIGITS[4, 50] = 0.01
SEEN = build()
SEEN[0].weight.data /= UNITS

SQUEEZED = X.clone()
SQUEEZED[:2] *= 1e5
CAUCHY = X / torch.randn(N, 6, generator=torch.Generator().manual_seed(2))

SICK: dict[str, tuple[nn.Module, Tensor]] = {
    "a table": (build(), X * UNITS),
    "a table with offsets": (build(), X * UNITS + UNITS),
    "years": (build(), torch.cat([2000 + 10 * X[:, :1], X[:, 1:]], 1)),
    "steps": (Last(), X[:, None] * UNITS * torch.ones(12, 1)),
    "depth beside colours": (build_images(4), DEPTH),
    "normalised too late": (build(6, nn.Linear(6, 6), nn.BatchNorm1d(6)), X * UNITS),
    "an outlier": (build(), SPIKED),
    "behind a layer normalisation": (build(6, nn.LayerNorm(6)), X * UNITS),
    "years behind a layer normalisation": (
        build(6, nn.LayerNorm(6)),
        torch.cat([2000 + 10 * X[:, :1], X[:, 1:]], 1),
    ),
    "standardised by outliers": (build(), (SQUEEZED - SQUEEZED.mean(0)) / SQUEEZED.std(0)),
    "brought to 0 and 1 by an outlier": (
        build(),
        (SPIKED - SPIKED.amin(0)) / (SPIKED.amax(0) - SPIKED.amin(0)),
    ),
}
EVEN: dict[str, tuple[nn.Module, Tensor]] = {
    "standardised": (build(), X),
    "near units": (build(), X * torch.tensor([1.0, 5.0, 0.5, 10.0, 1.0, 3.0])),
    "one-hot": (build(50), functional.one_hot(torch.arange(N), 50).float()),
    "digits": (build(784), DIGITS),
    "counts": (build(200), (rand(N, 200) * 5 * rand(200)).round()),
    "log-normal": (build(), X.exp()),
    "heavy tails": (build(), X / rand(N, 6).clamp_min(0.02)),
    "Cauchy's": (build(), CAUCHY),
    "behind a layer normalisation": (
        build(6, nn.LayerNorm(6)),
        X * torch.tensor([1.0, 5.0, 0.5, 10.0, 1.0, 3.0]),
    ),
    "answers of yes and no": (build(), torch.cat([X[:, :3], (X[:, 3:] > 0).float()], 1)),
    "normalised by the model": (build(6, nn.BatchNorm1d(6)), X * UNITS),
    "channels normalised by the model": (build_images(4, nn.BatchNorm2d(4)), DEPTH),
    "scaled by the model": (OwnScale(), X * UNITS),
    "weights that learned the units": (SEEN, X * UNITS),
}


@pytest.mark.parametrize("name", SICK)
def test_uneven_features_are_found(name: str) -> None:
    net, x = SICK[name]
    assert unvanish.check(net, (x, Y), ENTROPY, confirm=False).findings[0].code == "INP002"


@pytest.mark.parametrize("name", EVEN)
def test_even_features_are_left_alone(name: str) -> None:
    net, x = EVEN[name]
    found = unvanish.check(net, (x, Y), ENTROPY, confirm=False, select=["INP002"])
    assert found.codes("note") == ()


@pytest.mark.parametrize("name", ["a table with offsets", "depth beside colours"])
def test_the_cure_standardises_each_feature(name: str) -> None:
    net, x = SICK[name]
    cured: Any = unvanish.cure(net, (x, Y), ENTROPY)
    (first, *_) = cured.prescription.remedies
    assert first.cure == "standardise-input" and len(first.parameters["stds"]) == x.shape[1]
    assert "INP002" not in unvanish.check(cured.model, (x, Y), ENTROPY).codes("note")


def test_outliers_do_not_set_the_scale() -> None:
    found = unvanish.check(build(), (SPIKED, Y), ENTROPY, confirm=False)
    (planned,) = cures()["standardise-input"].plan(found.trace, found.findings[0].remedies[0])
    assert planned.parameters["stds"][2] < 3
    settings = {"axis": 1, "bound": planned.parameters["bound"]}
    scaled = Standardise(planned.parameters["means"], planned.parameters["stds"], **settings)
    assert float(scaled(SPIKED).abs().max()) <= 10


def test_pixels_divided_twice_are_found() -> None:
    found = unvanish.check(build(784), (rand(N, 784) / 255, Y), ENTROPY, confirm=False)
    assert found.findings[0].code == "INP001" and "divided twice" in found.findings[0].cause
    assert unvanish.check(build(784), (rand(N, 784), Y), ENTROPY, confirm=False).codes() == ()
