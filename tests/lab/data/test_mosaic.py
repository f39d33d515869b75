"""Scenes put together of four: what is said of them is what is seen on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unvanish.lab.data import open_data
from unvanish.lab.data.boxes import Boxed, BoxLabels
from unvanish.lab.data.labels import Labels
from unvanish.lab.data.mosaic import Mixed, Mixing, mix_scenes, paste
from unvanish.lab.data.part import Draw, Subset, seed_generator

SIZE = 64
LEVELS = (40, 80, 160, 240)  # of the one object on each image, which is of its own class


def part(masked=False, shape=(SIZE, SIZE)):
    """Four black images with a bright rectangle each."""
    images, records = torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8), []
    top, left = ((SIZE - side) // 2 for side in shape)
    for i, level in enumerate(LEVELS):
        x, y, w, h = 10 + 6 * i, 12 + 3 * i, 24, 16
        images[i, :, y : y + h, x : x + w] = level
        inner = np.array([x - left, y - top, w, h], np.float32)
        wide, high = shape[::-1]
        box = np.array(
            [[(inner[0] + w / 2) / wide, (inner[1] + h / 2) / high, w / wide, h / high]], np.float32
        )
        low, far = box[0, :2] - box[0, 2:] / 2, box[0, :2] + box[0, 2:] / 2
        corners = np.array([low, [far[0], low[1]], far, [low[0], far[1]]], np.float32)
        records.append(BoxLabels(Path(f"{i}.png"), shape, Labels(np.array([i]), box, (corners,))))
    return Boxed(records, SIZE, images, masked)


def scenes(how, count=4, seed=0, epoch=0, **settings):
    made = Mixed(part(**settings), how)
    return [made.batch(np.arange(4), Draw(epoch, seed_generator(seed, i))) for i in range(count)]


def near(image, level, corners, grow):
    """How many pixels of a box, grown on all sides, have nearly a level, and how many it has."""
    low = (corners[:2] - grow).round().int().clamp(0, SIZE).tolist()
    high = (corners[2:] + grow).round().int().clamp(0, SIZE).tolist()
    cut = image[0, low[1] : max(high[1], low[1]), low[0] : max(high[0], low[0])].float()
    return int(((cut - level).abs() < 12).sum()), cut.numel()


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_boxes_are_where_their_objects_are(mosaic):
    checked = 0
    for x, y in scenes(Mixing(mosaic, until=9), 20):
        assert x.shape == (4, 3, SIZE, SIZE) and x.dtype == torch.uint8
        assert (y[:, 2:4] - y[:, 4:] / 2).min() > -1e-6 and (y[:, 2:4] + y[:, 4:] / 2).max() < 1 + 1e-6
        for image in range(4):
            rows = y[y[:, 0] == image]
            for row in rows:
                level, told = LEVELS[int(row[1])], torch.cat((row[2:4] - row[4:] / 2, row[2:4] + row[4:] / 2))
                inside, whole = near(x[image], level, told * SIZE, -1.5)
                assert inside == whole  # the object fills its box
                around, _ = near(x[image], level, told * SIZE, 3)
                lone = int((rows[:, 1] == row[1]).sum()) == 1
                assert not lone or around <= (row[4:] * SIZE + 2).prod()  # and does not reach beyond
                checked += 1
    assert checked > 60


def test_a_mosaic_holds_objects_of_several_images_and_a_single_one_of_one():
    several = [len(y[y[:, 0] == i, 1].unique()) for x, y in scenes(Mixing(until=1), 8) for i in range(4)]
    assert max(several) >= 3
    single = scenes(Mixing(until=1), 8, epoch=1)
    assert all((torch.bincount(y[:, 0].long()) <= 1).all() for _, y in single)
    assert all(int(row[1]) == int(row[0]) for _, y in single for row in y)


def test_nothing_to_mix_leaves_it_as_it_is():
    ((x, y),) = scenes(Mixing(0, 0, 0, 0), 1)
    whole, rows = part().batch(np.arange(4), Draw(0, seed_generator(0, 0)))
    assert torch.equal(x, whole)
    torch.testing.assert_close(y, rows, atol=1e-6, rtol=0)


def test_bars_of_a_letterbox_are_left_out():
    for x, _ in scenes(Mixing(0, 0, 0, 0), 1, shape=(32, SIZE)):
        assert (x[:, :, :16] == 114).all() and (x[:, :, 48:] == 114).all()  # laid in the middle again
    crowded = [int((x == 114).all(1).sum()) for x, _ in scenes(Mixing(1, 0, 0, 9), 4, shape=(32, SIZE))]
    assert min(crowded) < 4 * SIZE * SIZE / 2 + 1


def test_masks_come_with_their_rows():
    for _, (rows, masks) in scenes(Mixing(until=9), 3, masked=True):
        assert len(rows) == len(masks) and masks.shape[1:] == (16, 16)
        for row, mask in zip(rows, masks, strict=True):
            assert float(mask.float().mean()) == pytest.approx(float(row[4:].prod()), abs=0.05)


def test_chance_is_that_of_the_batch():
    first, again, other = (scenes(Mixing(until=9), 1, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_what_is_hardly_in_sight_does_not_count():
    for _, y in scenes(Mixing(until=9), 20):
        assert (y[:, 4:] * SIZE > 2).all()


def test_an_image_beside_the_scene_leaves_it_alone():
    scene = torch.zeros(3, 8, 8, dtype=torch.uint8)
    paste(scene, torch.ones(3, 4, 4, dtype=torch.uint8), 9, 0)
    paste(scene, torch.ones(3, 4, 4, dtype=torch.uint8), -5, 2)
    assert not scene.any()
    paste(scene, torch.ones(3, 4, 4, dtype=torch.uint8), -2, 6)
    assert int(scene[0].sum()) == 4 and scene[0, 6:, :2].all()


def test_only_scenes_are_mixed_also_some_of_them():
    how, whole = Mixing(until=1), part()
    some = mix_scenes(Subset(whole, np.array([1, 3])), how)
    assert isinstance(some, Mixed) and len(some) == 2
    _, y = some.batch(np.arange(2), Draw(0, seed_generator(0, 0)))
    assert set(y[:, 1].tolist()) <= {1.0, 3.0}
    data = open_data("digits", batch=8, mixing=how)
    assert not isinstance(data.train.dataset.part, Mixed)
    shapes = open_data("shapes", task="detect", imgsz=32, samples=8, val_samples=4, batch=4, mixing=how)
    assert isinstance(shapes.train.dataset.part, Mixed) and not isinstance(shapes.val.dataset.part, Mixed)
