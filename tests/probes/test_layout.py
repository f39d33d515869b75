"""Views between the last layer and the loss: those that cut across the classes, and those that do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish

GENERATOR = torch.Generator().manual_seed(0)
STEPS, LABELS = torch.randn(10, 6, 8, generator=GENERATOR), torch.arange(60).view(10, 6) % 4
IMAGES, MAPS = torch.rand(4, 3, 8, 8, generator=GENERATOR), torch.arange(256).view(4, 8, 8) % 4
ROWS = torch.randn(24, 8, generator=GENERATOR)
Loss = Callable[[Tensor, Tensor], Tensor]
cross = functional.cross_entropy


def read_steps() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def read_images() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))


CROSSED: dict[str, tuple[nn.Module, Tensor, Tensor, Loss]] = {
    "a view for a transpose": (read_steps(), STEPS, LABELS, lambda z, y: cross(z.view(10, 4, 6), y)),
    "a flat view of maps": (read_images(), IMAGES, MAPS, lambda z, y: cross(z.view(-1, 4), y.view(-1))),
    "the wrong transpose": (
        read_images(), IMAGES, MAPS, lambda z, y: cross(z.transpose(1, 2).reshape(-1, 4), y.view(-1)),
    ),
    "after a log-softmax": (
        read_images(), IMAGES, MAPS,
        lambda z, y: functional.nll_loss(z.log_softmax(1).reshape(-1, 4), y.view(-1)),
    ),
}  # fmt: skip
ALONG: dict[str, tuple[nn.Module, Tensor, Tensor, Loss]] = {
    "a transpose": (read_steps(), STEPS, LABELS, lambda z, y: cross(z.transpose(1, 2), y)),
    "flat": (read_steps(), STEPS, LABELS, lambda z, y: cross(z.reshape(-1, 4), y.reshape(-1))),
    "the next step": (
        read_steps(), STEPS, LABELS, lambda z, y: cross(z[:, :-1].reshape(-1, 4), y[:, 1:].reshape(-1)),
    ),
    "a permutation of maps": (
        read_images(), IMAGES, MAPS, lambda z, y: cross(z.permute(0, 2, 3, 1).reshape(-1, 4), y.view(-1)),
    ),
    "maps": (read_images(), IMAGES, MAPS, cross),
    "a score for each of several choices": (
        nn.Linear(8, 1), ROWS, torch.arange(6) % 4, lambda z, y: cross(z.view(-1, 4), y),
    ),
    "several answers of one layer": (
        nn.Linear(8, 12), ROWS, torch.arange(72).view(24, 3) % 4,
        lambda z, y: cross(z.view(-1, 4), y.flatten()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CROSSED)
def test_a_view_across_the_classes_is_found(name: str) -> None:
    net, x, y, loss = CROSSED[name]
    (found,) = unvanish.check(net, (x, y), loss, confirm=False, select=["OUT001"]).findings
    assert found.code == "OUT001" and "a view between them mixes" in found.cause


@pytest.mark.parametrize("name", ALONG)
def test_other_views_are_left_alone(name: str) -> None:
    net, x, y, loss = ALONG[name]
    assert unvanish.check(net, (x, y), loss, confirm=False, select=["OUT001"]).codes("note") == ()
