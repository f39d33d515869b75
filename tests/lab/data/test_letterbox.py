"""Letterboxing: boxes and points go there and back, and lie where the pixels do."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from unvanish.lab.data.letterbox import GREY, Letterbox, letterbox_file

SIDES = st.integers(8, 3000)
SHARES = arrays(np.float32, (5, 4), elements=st.floats(0, 1, width=32))


@given(SIDES, SIDES, st.sampled_from([64, 320, 640]), st.booleans(), SHARES)
def test_there_and_back(rows, columns, size, enlarge, boxes):
    box = Letterbox((rows, columns), size, enlarge)
    np.testing.assert_allclose(box.boxes_back(box.boxes(boxes)), boxes, atol=2e-3)
    np.testing.assert_allclose(box.points_back(box.points(boxes[:, :2])), boxes[:, :2], atol=2e-3)
    points = box.points(boxes[:, :2])
    assert points.min() >= -1e-6 and points.max() <= 1 + 1e-6


@given(SIDES, SIDES, st.sampled_from([64, 320, 640]))
def test_the_image_fills_the_square_one_way_and_is_centred(rows, columns, size):
    box = Letterbox((rows, columns), size)
    (height, width), (top, left) = box.inner, box.corner
    assert max(height, width) == size
    assert abs(2 * top + height - size) <= 1 and abs(2 * left + width - size) <= 1
    longer = rows / columns * width if rows < columns else columns / rows * height
    assert abs(min(height, width) - max(longer, 1)) <= 1  # the shape is kept to a pixel


def test_pixels_and_boxes_agree(tmp_path):
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[15:45, 30:60] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    square = letterbox_file(tmp_path / "a.png", 240).numpy()
    x, y, w, h = Letterbox((60, 120), 240).boxes(np.array([[0.375, 0.5, 0.25, 0.5]], np.float32))[0] * 240
    inside = square[:, round(y - h / 2) : round(y + h / 2), round(x - w / 2) : round(x + w / 2)]
    assert inside[:, 2:-2, 2:-2].min() == 255 and inside.shape == (3, 60, 60)
    assert (square[:, :60] == GREY).all() and (square[:, -60:] == GREY).all()
    assert (square[0] > 127).sum() == 3600


def test_a_turned_photograph_is_put_upright(tmp_path):
    picture = Image.fromarray(np.zeros((40, 80, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    square = letterbox_file(tmp_path / "a.jpg", 80)
    assert (square[0, :, 0] == GREY).all() and (square[0, 0, 40] == 0).all()
