"""Small networks of the zoo learn, and their sick ancestors do not: a minute's task of eight-pixel
pictures.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from unvanish.lab.models import build, read

CLASSES = 4


def pictures(count, seed):
    """Bars at four angles on 8 x 8 pixels, shifted and noisy: (count, 1, 8, 8) and labels."""
    maker = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=maker)
    angle = labels * torch.pi / CLASSES
    grid = torch.linspace(-1, 1, 8)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    shift = torch.rand(count, generator=maker) - 0.5
    distance = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None] - shift[:, None, None]
    image = (distance.abs() < 0.25).float() + 0.2 * torch.randn(count, 8, 8, generator=maker)
    return ((image - image.mean()) / image.std())[:, None], labels


def accuracy_after(name, steps=60, rate=3e-3, **overrides):
    torch.manual_seed(0)
    net = build(read(name, **overrides), classes=CLASSES, channels=1, size=8)
    images, labels = pictures(512, 1)
    optimizer = torch.optim.Adam(net.parameters(), rate)
    for step in range(steps):
        take = slice(step * 64 % 512, step * 64 % 512 + 64)
        loss = F.cross_entropy(net(images[take]), labels[take])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test_images, test_labels = pictures(256, 2)
    net.eval()
    with torch.no_grad():
        return float((net(test_images).argmax(1) == test_labels).float().mean())


@pytest.mark.parametrize("name", ["resnet20", "preactresnet20", "relu-cnn", "gelu-cnn"])
def test_it_learns(name):
    assert accuracy_after(name) > 0.8


def test_tanh_without_norms_learns_at_its_critical_point():
    assert accuracy_after("vanilla", depth=20, rate=1e-3) > 0.8


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_vision_transformer_learns():
    assert accuracy_after("vit-tiny", rate=1e-4) > 0.6


def test_the_sick_ancestor_does_not_learn_and_one_line_heals_it():
    assert accuracy_after("sigmoid-cnn") < 0.45
    assert accuracy_after("sigmoid-cnn", init="critical", rate=1e-3) > 0.8
