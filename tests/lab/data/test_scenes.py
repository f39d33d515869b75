"""Augmentation of scenes: boxes follow their objects, colours move as told, chance is that of the batch."""

from __future__ import annotations

import pytest
import torch

from unvanish.lab.data import open_data
from unvanish.lab.data.scenes import Scenes, mirrored_scenes, shift_colours


def scene(images=6):
    """A bright rectangle on black in each image, and its row."""
    x, rows = torch.zeros(images, 3, 20, 20, dtype=torch.uint8), []
    for i in range(images):
        x[i, :, 4:8, i : i + 6] = 200
        rows.append([i, 1, (i + 3) / 20, 6 / 20, 6 / 20, 4 / 20])
    return x, torch.tensor(rows)


def found(image):
    """Left and right edge of what is bright."""
    columns = (image.float().mean(0).amax(0) > 0.1).nonzero()[:, 0]
    return int(columns[0]), int(columns[-1]) + 1


def test_boxes_follow_mirrored_objects():
    x, y = scene()
    which = torch.tensor([True, False, True, True, False, False])
    turned, rows = mirrored_scenes(x, y, which)
    for i in range(6):
        left, right = found(turned[i])
        assert rows[i, 2].item() * 20 == pytest.approx((left + right) / 2)
        assert (left == i) == (not which[i])
    again, back = mirrored_scenes(turned, rows, which)
    assert torch.equal(again, x) and torch.allclose(back, y)
    assert mirrored_scenes(x, y[:0], which)[1].shape == (0, 6)


def test_a_view_is_a_function_of_its_generator():
    x, y = scene(64)
    views = [Scenes()((x, y), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(views[0][0], views[1][0]) and not torch.equal(views[0][0], views[2][0])
    mirrored = (views[0][1][:, 2] - y[:, 2]).abs() > 1e-6
    assert 16 < int(mirrored.sum()) < 48
    assert views[0][0].min() >= 0 and views[0][0].max() <= 1
    still = Scenes(0, 0, 0, 0)((x, y), torch.Generator())
    torch.testing.assert_close(still[0], x / 255, atol=1e-6, rtol=0)


def test_colours_move_as_told():
    x = torch.rand(2, 3, 5, 5) * 0.4 + 0.2
    none, one = torch.zeros(2), torch.ones(2)
    torch.testing.assert_close(shift_colours(x, none, one, one), x)
    torch.testing.assert_close(shift_colours(x, none, one, 0.5 * one), 0.5 * x)
    grey = shift_colours(x, none, none, one)
    assert torch.allclose(grey[:, 0], grey[:, 2])
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    turned = shift_colours(x, 0.02 * one, one, one)
    torch.testing.assert_close((turned * luma).sum(1), (x * luma).sum(1))  # brightness stays
    assert (turned - x).abs().max() > 0.01
    flat = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(shift_colours(flat, 0.1 * one, 1.5 * one, one), flat)  # grey has no hue
    third = shift_colours(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), torch.tensor([1 / 3]), one[:1], one[:1])
    assert int(third.flatten().argmax()) == 1  # red becomes green


def test_training_scenes_are_augmented_and_others_are_not():
    data = open_data("shapes", task="detect", imgsz=32, samples=16, val_samples=8, batch=8)
    plain = open_data("shapes", task="detect", imgsz=32, samples=16, val_samples=8, batch=8, augment=False)
    x, y = next(iter(data.train))
    x0, y0 = next(iter(plain.train))
    assert x.shape == x0.shape and not torch.allclose(x, x0) and not torch.equal(y, y0)
    assert torch.equal(y[:, [0, 1, 3, 4, 5]], y0[:, [0, 1, 3, 4, 5]])
    assert torch.equal(next(iter(data.val))[0], next(iter(plain.val))[0])
