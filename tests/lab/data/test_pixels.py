"""Pictures of any depth and arrays of any layout show the same pixels; one broken file stops nothing."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from unvanish.lab.data import DataError
from unvanish.lab.data.letterbox import letterbox_file
from unvanish.lab.data.pictures import check_image, decode_image, decode_square, list_images
from unvanish.lab.data.pixels import to_bytes
from unvanish.lab.data.sources import read_pictures

GREY = (np.arange(64, dtype=np.uint8) * 4).reshape(8, 8)
RGB = np.stack([GREY, GREY // 2, 255 - GREY], 2)  # (8, 8, 3)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("8.png", GREY),
        ("16.png", GREY.astype(np.uint16) * 257),
        ("16.tif", GREY.astype(np.uint16) * 257),
        ("32.tif", GREY.astype(np.int32) * 257),
        ("small32.tif", GREY.astype(np.int32)),
        ("float.tif", GREY.astype(np.float32) / 255),
        ("float255.tif", GREY.astype(np.float32)),
    ],
)
def test_pictures_of_any_depth(tmp_path, name, pixels):
    path = tmp_path / name
    Image.fromarray(pixels).save(path)
    expected = torch.from_numpy(GREY.copy())
    assert torch.equal(decode_image(path, 1)[0], expected)
    assert all(torch.equal(plane, expected) for plane in decode_image(path, 3))
    assert torch.equal(decode_square(path, 8, 1)[0], expected)
    assert torch.equal(letterbox_file(path, 8)[1], expected)
    assert check_image(path) == (8, 8)


def test_fractions_that_are_no_numbers_are_no_picture(tmp_path):
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(np.full((4, 4), -3e5, np.float32)).save(tmp_path / "b.tif")
    for name, told in (("a.tif", "finite"), ("b.tif", "are no picture")):
        assert told in str(check_image(tmp_path / name))
        with pytest.raises(DataError, match=told):
            list(read_pictures(tmp_path / name, 3))


TURNED = RGB[..., ::-1]  # as OpenCV reads it; its strides are negative


@pytest.mark.parametrize(
    "array",
    [
        TURNED,
        TURNED.copy(),
        np.concatenate([TURNED, GREY[..., None]], 2),
        TURNED.transpose(2, 0, 1),
        TURNED.astype(np.float32) / 255,
        TURNED.astype(np.float64),
        TURNED.astype(np.uint16) * 257,
        TURNED.astype(np.int64),
        np.asfortranarray(TURNED),
        TURNED[None],
        TURNED[None].transpose(0, 3, 1, 2).astype(np.float32) / 255,
        torch.from_numpy(RGB).permute(2, 0, 1),
        torch.from_numpy(RGB).permute(2, 0, 1)[None].float() / 255,
        torch.from_numpy(RGB).permute(2, 0, 1)[None].double().requires_grad_(),
    ],
)
def test_arrays_of_any_layout(array):
    ((origin, image),) = read_pictures(array, 3)
    assert origin == "array" and image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(RGB).permute(2, 0, 1))


def test_brain_floats_are_read_too():
    ((_, image),) = read_pictures(torch.full((3, 4, 4), 0.5, dtype=torch.bfloat16), 3)
    assert image.unique().tolist() == [128]


def test_red_comes_first_if_it_is_said():
    ((_, image),) = read_pictures(RGB, 3, rgb=True)
    assert torch.equal(image, torch.from_numpy(RGB).permute(2, 0, 1))
    ((_, grey),) = read_pictures(RGB, 1, rgb=True)
    expected = np.asarray(Image.fromarray(RGB).convert("L"), np.int16)
    assert np.abs(grey[0].numpy().astype(np.int16) - expected).max() <= 1


def test_a_batch_is_as_many_pictures():
    found = list(read_pictures(np.stack([TURNED, 255 - TURNED]), 3))
    assert [origin for origin, _ in found] == ["array 0", "array 1"]
    assert torch.equal(found[0][1], 255 - found[1][1])


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((4, 4, 3)) - 5, "are no picture"),
        (np.full((4, 4, 3), 1e6), "are no picture"),
        (np.full((4, 4, 3), np.inf), "finite"),
        (np.zeros((6, 7, 5), np.uint8), r"it is \(6, 7, 5\)"),
        (np.zeros(4, np.uint8), r"it is \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"it is \(0, 4, 3\)"),
        (np.array([["a"]]), "finite numbers"),
    ],
)
def test_what_is_no_picture_is_refused(array, told):
    with pytest.raises(DataError, match=told):
        list(read_pictures(array, 3))


def test_bytes_are_kept_as_they_are():
    assert to_bytes(GREY) is GREY
    assert to_bytes(GREY > 99).max() == 255


def test_one_broken_file_stops_no_folder(tmp_path):
    for i in range(3):
        Image.fromarray(RGB).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"\x89PNG broken")
    os.symlink(tmp_path / "gone.png", tmp_path / "4.png")
    with pytest.warns(RuntimeWarning, match="left out") as told:
        found = [origin for origin, _ in read_pictures(tmp_path, 3)]
    assert [name.rsplit("/")[-1] for name in found] == ["0.png", "2.png"] and len(told) == 2
    assert "readable" in str(check_image(tmp_path / "4.png"))


def test_a_single_broken_file_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        list(read_pictures(tmp_path / "a.png", 3))


def test_linked_folders_are_followed_once(tmp_path):
    (tmp_path / "there").mkdir()
    Image.fromarray(RGB).save(tmp_path / "there" / "a.png")
    (tmp_path / "here").mkdir()
    os.symlink(tmp_path / "there", tmp_path / "here" / "linked")
    os.symlink(tmp_path / "here", tmp_path / "there" / "back")
    assert [p.name for p in list_images(tmp_path / "here")] == ["a.png"]


def test_avif(tmp_path):
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    Image.fromarray(RGB).save(tmp_path / "a.avif", quality=100)
    assert [p.name for p in list_images(tmp_path)] == ["a.avif"]
    assert decode_image(tmp_path / "a.avif", 3).shape == (3, 8, 8)
