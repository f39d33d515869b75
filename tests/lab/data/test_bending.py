"""Turned, sheared, tilted and mirrored scenes: boxes, outlines and masks stay on their objects' pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unvanish.lab.data import DataError, open_data
from unvanish.lab.data.bending import Bending, cut_polygon, list_edges, project
from unvanish.lab.data.boxes import Boxed, BoxLabels
from unvanish.lab.data.labels import Labels, extent
from unvanish.lab.data.mosaic import Mixed, Mixing, mix_scenes
from unvanish.lab.data.narrow import Narrow, cut_middle, narrow_scenes
from unvanish.lab.data.part import Draw, seed_generator
from unvanish.lab.data.scenes import Scenes, mirrored_scenes, rescale

SIZE = 96
LEVELS = (30, 210)  # of the two objects on each image: a triangle and a rectangle


def part(masked=True, outlined=True, shape=(SIZE, SIZE)):
    """Grey images with two marked objects each, drawn from their outlines."""
    from PIL import Image, ImageDraw

    images, records = [], []
    for i in range(4):
        low = 0.12 + 0.04 * i
        shapes = [
            np.array([[low, low], [low + 0.3, low + 0.05], [low + 0.1, low + 0.35]], np.float32),
            np.array([[0.6, low + 0.3], [0.85, low + 0.3], [0.85, low + 0.5], [0.6, low + 0.5]], np.float32),
        ]
        canvas = Image.new("RGB", (SIZE * 4, SIZE * 4), (114,) * 3)
        for outline, level in zip(shapes, LEVELS, strict=True):
            ImageDraw.Draw(canvas).polygon(
                [tuple(p) for p in (outline * SIZE * 4).tolist()], fill=(level,) * 3
            )
        small = np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX))
        images.append(torch.from_numpy(small.transpose(2, 0, 1).copy()))
        labels = Labels(
            np.array([0, 1]), np.stack([extent(s) for s in shapes]), tuple(shapes) if outlined else ()
        )
        records.append(BoxLabels(Path(f"{i}.png"), shape, labels))
    return Boxed(records, SIZE, torch.stack(images), masked)


def scenes(how, count=6, **settings):
    made = Mixed(part(**settings), how)
    return [made.batch(np.arange(4), Draw(0, seed_generator(7, i))) for i in range(count)]


def marked(image, label):
    """Where an object's pixels are, (S, S)."""
    value = image[0].float()
    return value < 60 if label == 0 else value > 180


BENDS = {
    "degrees": Bending(degrees=180),
    "shear": Bending(shear=30),
    "perspective": Bending(perspective=0.001),
    "all": Bending(20, 10, 0.0005),
}


@pytest.mark.parametrize("bend", BENDS)
def test_boxes_and_masks_follow_the_pixels(bend):
    """The box of each object that was labelled is the extent of its pixels, its mask covers them."""
    checked = 0
    for x, (rows, masks) in scenes(Mixing(0.0, 0.05, 0.2, 0, BENDS[bend])):
        for row, mask in zip(rows, masks, strict=True):
            image, label = x[int(row[0])], int(row[1])
            ys, xs = marked(image, label).nonzero().T
            seen = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
            told = torch.cat((row[2:4] - row[4:] / 2, row[2:4] + row[4:] / 2)) * SIZE
            assert (seen - told).abs().max() <= 2.6, (bend, seen, told)
            large = mask.repeat_interleave(4, 0).repeat_interleave(4, 1).bool()
            both = (large & marked(image, label)).sum() / (large | marked(image, label)).sum()
            assert both > 0.6
            checked += 1
    assert checked >= 36


def test_boxes_without_outlines_hold_their_pixels():
    for x, rows in scenes(Mixing(0.0, 0.0, 0.0, 0, Bending(degrees=40)), masked=False, outlined=False):
        for row in rows:
            ys, xs = marked(x[int(row[0])], int(row[1])).nonzero().T
            told = torch.cat((row[2:4] - row[4:] / 2, row[2:4] + row[4:] / 2)) * SIZE
            assert told[0] <= xs.min() + 2 and told[1] <= ys.min() + 2
            assert told[2] >= xs.max() - 1 and told[3] >= ys.max() - 1


def test_mosaics_are_bent_too_and_nothing_is_lost_that_is_seen():
    for x, (rows, _) in scenes(Mixing(1.0, 0.1, 0.3, 9, Bending(30, 5, 0.0005)), 8):
        for image in range(4):
            for label in (0, 1):
                area = int(marked(x[image], label).sum())
                told = int(((rows[:, 0] == image) & (rows[:, 1] == label)).sum())
                assert told or area < 90  # what is hardly in sight does not count


@pytest.mark.parametrize("upside", [False, True])
def test_mirrored_scenes_keep_their_labels(upside):
    x, (rows, masks) = part().batch(np.arange(4), Draw(0, seed_generator(0, 0)))
    turned, (moved, flipped) = mirrored_scenes(x, (rows, masks), torch.tensor([True, False] * 2), upside)
    for row, mask in zip(moved, flipped, strict=True):
        ys, xs = marked(turned[int(row[0])], int(row[1])).nonzero().T
        assert float(xs.float().mean() / SIZE) == pytest.approx(float(row[2]), abs=0.06)
        assert float(ys.float().mean() / SIZE) == pytest.approx(float(row[3]), abs=0.06)
        assert float(mask.nonzero().float().mean(0)[0] * 4 / SIZE) == pytest.approx(
            float(ys.float().mean() / SIZE), abs=0.06
        )
    assert torch.equal(turned[1], x[1]) and not torch.equal(turned[0], x[0])


def test_half_of_the_scenes_stand_on_their_heads():
    x, y = part().batch(np.arange(4), Draw(0, seed_generator(0, 0)))
    x, (rows, masks) = x.repeat(8, 1, 1, 1), y
    _, (moved, _) = Scenes(0, 0, 0, 0, upside=1.0)((x, (rows, masks)), torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved[:, 3], 1 - rows[:, 3])


def test_sides_differ_from_batch_to_batch():
    x = torch.rand(2, 3, 96, 128)
    found = {tuple(rescale(x, 0.5, torch.Generator().manual_seed(i)).shape[-2:]) for i in range(12)}
    assert len(found) > 3 and all(h % 32 == 0 == w % 32 for h, w in found)
    assert all(48 <= h <= 160 for h, _ in found) and rescale(x, 0.0, torch.Generator()) is x


def test_blended_scenes_hold_the_objects_of_both():
    plain = scenes(Mixing(0, 0, 0, 0), 1)[0]
    mixed = scenes(Mixing(0, 0, 0, 0, mixup=1.0), 1)[0]
    assert len(mixed[1][0]) == 2 * len(plain[1][0]) == len(mixed[1][1])
    values = mixed[0].float()
    assert int((values < 40).sum()) < int((plain[0] < 40).sum())  # half of another shines through


def test_pasted_objects_are_where_they_are_said_to_be():
    plain = scenes(Mixing(0, 0, 0, 0), 1)[0]
    x, (rows, masks) = scenes(Mixing(0, 0, 0, 0, copy_paste=1.0), 1)[0]
    assert len(plain[1][0]) < len(rows) == len(masks) <= 2 * len(plain[1][0])
    for row, mask in zip(rows, masks, strict=True):
        inside = mask.repeat_interleave(4, 0).repeat_interleave(4, 1).bool()
        assert float(marked(x[int(row[0])], int(row[1]))[inside].float().mean()) > 0.7
    with pytest.raises(DataError, match=r"copy_paste=0\.5 needs outlines"):
        mix_scenes(part(outlined=False), Mixing(copy_paste=0.5))


def test_narrow_batches_lose_shared_bars_only():
    whole = part(shape=(SIZE // 3, SIZE))  # images three times as wide as high: 32 of 96 rows
    narrow = narrow_scenes(whole)
    assert isinstance(narrow, Narrow) and narrow.lengths.tolist() == [333] * 4 and len(narrow) == 4
    x, (rows, masks) = narrow.batch(np.arange(4), Draw(0, seed_generator(0, 0)))
    assert x.shape == (4, 3, 32, 96) and masks.shape[1:] == (8, 24)
    full = whole.batch(np.arange(4), Draw(0, seed_generator(0, 0)))
    assert torch.equal(x, full[0][:, :, 32:64]) and len(rows) == len(full[1][0])
    centres = rows[:, 3] * 32 + 32
    torch.testing.assert_close(centres, full[1][0][:, 3] * SIZE, atol=1e-3, rtol=0)
    assert isinstance(narrow_scenes(mix_scenes(whole, Mixing(0))), Narrow)


def test_the_middle_of_a_square_keeps_what_is_seen():
    x, y = part().batch(np.arange(4), Draw(0, seed_generator(0, 0)))
    cut, (rows, masks) = cut_middle(x, y, 64, 96)
    assert cut.shape == (4, 3, 64, 96) and len(rows) == len(masks) <= len(y[0])
    assert torch.equal(cut_middle(x, y, SIZE, SIZE)[0], x)
    for row in rows:
        ys, _ = marked(cut[int(row[0])], int(row[1])).nonzero().T
        assert abs(float((row[3] - row[5] / 2) * 64) - int(ys.min())) < 2.5


def test_polygons_are_cut_at_edges():
    square = np.array([[-0.5, 0.2], [0.5, 0.2], [0.5, 0.6], [-0.5, 0.6]], np.float32)
    np.testing.assert_allclose(
        extent(cut_polygon(square, list_edges(0, 1))), [0.25, 0.4, 0.5, 0.4], atol=1e-6
    )
    spike = np.array([[0.5, 0.5], [3.0, 0.5], [0.5, 0.6]], np.float32)  # clamped it would keep its point
    cut = cut_polygon(spike, list_edges(0, 1))
    assert cut[:, 0].max() == pytest.approx(1) and cut[cut[:, 0] > 0.99, 1].max() == pytest.approx(
        0.58, abs=1e-4
    )
    assert cut_polygon(square + 5, list_edges(0, 1)).shape == (0, 2)
    np.testing.assert_allclose(project(square, np.eye(3)), square)


@pytest.mark.parametrize(
    ("settings", "rows", "classes"),
    [
        ({}, None, 4), ({"single": True}, {0}, 1), ({"classes": [1, 2]}, {1, 2}, 4),
        ({"classes": "star"}, {3}, 4),
        ({"classes": "star,circle"}, {0, 3}, 4), ({"classes": [0], "single": True}, {0}, 1),
    ],
)  # fmt: skip
def test_labels_that_count(settings, rows, classes):
    data = open_data("shapes", task="detect", imgsz=32, samples=16, val_samples=8, batch=8, **settings)
    found = {int(v) for loader in (data.train, data.val) for _, y in loader for v in y[:, 1]}
    assert data.facts["classes"] == classes and found == (rows or {0, 1, 2, 3})
    assert len(data.names) == classes == len(data.preparation["names"])


def test_classes_that_are_not_there_are_refused():
    for wrong in ("moon", 7, [0, "moon"]):
        with pytest.raises(DataError, match="there are circle, square, triangle, star"):
            open_data("shapes", task="detect", imgsz=32, samples=8, val_samples=4, classes=wrong)
