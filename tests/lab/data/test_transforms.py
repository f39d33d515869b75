"""The user's own transforms: what they are given, what they may give, and where boxes go.

Notable: the libraries need not be there; stand-ins say that they are of them, and are called as these are.
"""

from __future__ import annotations

import random
import types

import numpy as np
import pytest
import torch
from PIL import Image

from unvanish.lab.data import DataError
from unvanish.lab.data.boxes import shares
from unvanish.lab.data.part import seed_generator
from unvanish.lab.data.transforms import boxes_as, boxes_from, own_view

TORCHVISION, ALBUMENTATIONS = "torchvision.transforms.v2._container", "albumentations.core.composition"


def still(batch, generator):
    return batch


def stand_in(module, call, **attributes):
    """An object of a class that says it is of a library's module."""
    made = type("Compose", (), {"__module__": module, "__call__": lambda self, *a, **k: call(*a, **k)})()
    vars(made).update(attributes)
    return made


def images(count=3, channels=3, size=8):
    return torch.randint(0, 255, (count, channels, size, size), dtype=torch.uint8), torch.arange(count)


@pytest.mark.parametrize(
    "given",
    [
        lambda image: image,
        np.array,
        lambda image: torch.from_numpy(np.array(image)).movedim(-1, 0),
        lambda image: torch.from_numpy(np.array(image)).movedim(-1, 0) / 255,
        lambda image: np.array(image, np.float64) / 255,
        [lambda image: image, np.array],
        stand_in(ALBUMENTATIONS, lambda image: {"image": image}),
        stand_in("torchvision.transforms.transforms", lambda image: image),
    ],
)
def test_whatever_form_an_image_comes_back_in(given):
    x, y = images()
    out, same = own_view(given, still, "classify")((x, y), seed_generator(0, 0))
    assert out.dtype == torch.uint8 and torch.equal(out, x) and same is y


def test_grey_images_and_other_sizes():
    x, y = images(channels=1)
    assert torch.equal(own_view(lambda i: i, still, "classify")((x, y), seed_generator(0, 0))[0], x)
    out, _ = own_view(lambda i: i.crop((0, 0, 4, 6)), still, "classify")((x, y), seed_generator(0, 0))
    assert out.shape == x.shape


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda image: None, "give a NoneType, not an image"),
        (lambda image: (image, 1), "give a tuple, not an image"),
        (lambda image: np.zeros(4), "shape"),
        (lambda image: torch.zeros(2, 3, 4, 4), "not one image"),
        (lambda image: torch.zeros(3, 0, 0), "not one image"),
        (lambda image: torch.randn(3, 4, 4) * 3, "leave Normalize out"),
        (lambda image: torch.full((3, 4, 4), float("nan")), "leave Normalize out"),
        (lambda image: image.convert("L"), "give 1 channels, the images have 3"),
        (lambda image: 1 / 0, "transforms fail: ZeroDivisionError: division by zero"),
        (lambda image, boxes: image, "transforms fail: TypeError"),
        (stand_in(ALBUMENTATIONS, lambda image: image), "transforms fail"),
    ],
)
def test_what_is_no_image_is_one_line(given, told):
    with pytest.raises(DataError) as error:
        own_view(given, still, "classify")(images(), seed_generator(0, 0))
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "task", "told"),
    [
        ("flip", "classify", "must be a function of an image"),
        ([], "classify", "must be a function of an image"),
        ([np.array, 3], "classify", "must be a function of an image"),
        (np.array, "sentiment", "are for the tasks classify and detect"),
        (np.array, "segment", "are for the tasks classify and detect"),
        (np.array, "detect", "moves no boxes"),
        (stand_in("torchvision.transforms.transforms", print), "detect", "moves no boxes"),
        (stand_in(ALBUMENTATIONS, print), "detect", "would leave the boxes where they are"),
    ],
)
def test_what_is_not_for_the_task_is_one_line(given, task, told):
    with pytest.raises(DataError) as error:
        own_view(given, still, task)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_random_numbers_depend_on_the_batch_alone_and_are_put_back():
    def shade(image):
        value = int(127 * (random.random() + np.random.rand()))
        return Image.new("RGB", image.size, (value, int(255 * torch.rand(())), 0))

    view, batch = own_view(shade, still, "classify"), images()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first, again, other = (view(batch, seed_generator(0, n))[0] for n in (0, 0, 3))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])
    assert not torch.equal(first[0], first[1])


ROWS = torch.tensor(
    [[0, 2, 0.25, 0.5, 0.5, 0.5], [0, 1, 0.75, 0.25, 0.25, 0.25], [2, 0, 0.5, 0.5, 0.25, 0.5]]
)


def mirror(form, labels):
    """A stand-in for a composition of albumentations that mirrors images with boxes of this format."""

    def call(image, bboxes, **fields):
        height, width = image.shape[:2]
        corners = boxes_from(form, torch.tensor([b[:4] for b in bboxes]).reshape(-1, 4), (width, height))
        turned = torch.stack((width - corners[:, 2], corners[:, 1], width - corners[:, 0], corners[:, 3]), 1)
        made = boxes_as(form, turned, (width, height)).tolist()
        if not labels:
            made = [[*box, old[4]] for box, old in zip(made, bboxes, strict=True)]
        return {"image": image[:, ::-1].copy(), "bboxes": made, **fields}

    params = types.SimpleNamespace(format=form, label_fields=labels)
    held = types.SimpleNamespace(params=params)
    return stand_in(ALBUMENTATIONS, call, processors={"bboxes": held})


@pytest.mark.parametrize("form", ["yolo", "albumentations", "pascal_voc", "coco"])
@pytest.mark.parametrize("labels", [["labels"], [], ["kinds", "numbers"]])
def test_boxes_move_with_their_image(form, labels):
    x = images()[0]
    out, rows = own_view(mirror(form, labels), shares, "detect")((x, ROWS), seed_generator(0, 0))
    assert torch.equal((out * 255).round().to(torch.uint8), x.flip(-1))
    wanted = ROWS.clone()
    wanted[:, 2] = 1 - wanted[:, 2]
    assert torch.allclose(rows, wanted, atol=1e-6)


def test_boxes_that_leave_the_image_are_left_out():
    def away(image, bboxes, labels):
        return {"image": image[:6], "bboxes": [[0.9, 0.5, 0.4, 0.5], [1.5, 0.5, 0.2, 0.2]][: len(bboxes)],
                "labels": labels}  # fmt: skip

    held = types.SimpleNamespace(params=types.SimpleNamespace(format="yolo", label_fields=["labels"]))
    made = stand_in(ALBUMENTATIONS, away, processors={"bboxes": held})
    out, rows = own_view(made, still, "detect")((images()[0], ROWS), seed_generator(0, 0))
    assert out.shape == (3, 3, 8, 8) and rows[:, 0].tolist() == [0, 2] and rows[:, 1].tolist() == [2, 0]
    assert torch.allclose(rows[0, 2:], torch.tensor([0.85, 0.5, 0.3, 0.5]))
    empty = own_view(made, still, "detect")((images()[0], ROWS[:0]), seed_generator(0, 0))[1]
    assert empty.shape == (0, 6)
