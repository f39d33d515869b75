"""Predictions under the names that users of detectors and classifiers type."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unvanish.train import TrainError
from unvanish.train.predict import screen
from unvanish.train.predict.boxes import Boxes
from unvanish.train.predict.drawing import draw
from unvanish.train.predict.masks import Masks
from unvanish.train.predict.prediction import Prediction
from unvanish.train.predict.probs import Probs

SHAPE = (50, 100)
ROWS = torch.tensor([[10.0, 5, 30, 25, 0.9, 1], [40.5, 10, 80, 45.25, 0.6, 0]])
IMAGE = torch.randint(0, 255, (3, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MASKS = torch.zeros(2, *SHAPE, dtype=torch.bool)
MASKS[0, 5:25, 10:30] = True


def boxed(masks=True):
    return Prediction(
        "street/image.png", "segment", torch.zeros(6, 3), ("cat", "dog"), speed={"inference": 1.5},
        boxes=Boxes(ROWS, SHAPE), masks=Masks(MASKS, SHAPE) if masks else None, image=IMAGE,
    )  # fmt: skip


def classed():
    probs = Probs(torch.tensor([0.2, 0.5, 0.3]))
    return Prediction("a.png", "classify", torch.zeros(3), ("a", "b", "c"), probs, image=IMAGE)


def test_names_that_users_read():
    one = boxed()
    assert one.path == "street/image.png" and one.names == {0: "cat", 1: "dog"}
    assert one.orig_img.shape == (*SHAPE, 3) and one.orig_img[3, 4].tolist() == IMAGE[:, 3, 4].tolist()[::-1]
    assert one.boxes.id is None and not one.boxes.is_track and one.keypoints is None and one.obb is None
    assert one.probs is None and one.speed["inference"] == one.milliseconds == 1.5
    assert one.verbose() == "1 dog, 1 cat" and classed().verbose() == "b 0.50, c 0.30, a 0.20"
    assert Prediction("x", "translate", torch.zeros(2), text="hi").orig_img is None
    for box, label in zip(one.boxes, ("dog", "cat"), strict=True):  # as everybody's loops go
        assert one.names[int(box.cls)] == label and len(box.xyxy[0].tolist()) == 4 and 0 < float(box.conf) < 1


def test_classes_have_their_probabilities():
    probs = classed().probs
    assert (probs.top1, probs.top5, len(probs), probs.shape) == (1, [1, 2, 0], 3, (3,))
    assert float(probs.top1conf) == 0.5 and probs.top5conf.tolist() == pytest.approx([0.5, 0.3, 0.2])
    there = classed().numpy().probs
    assert isinstance(there.data, np.ndarray) and there.top5 == [1, 2, 0] and float(there.top1conf) == 0.5


def test_results_move_as_tensors_do():
    array = boxed().numpy()
    for name in ("xyxy", "xywh", "xyxyn", "xywhn", "conf", "cls", "data"):
        held = getattr(array.boxes, name)
        assert isinstance(held, np.ndarray), name
        np.testing.assert_allclose(held, getattr(boxed().boxes, name), rtol=1e-6)
    assert isinstance(array.masks.data, np.ndarray) and len(array.masks.xy) == 2
    assert len(array[0].boxes) == 1 and array.verbose() == boxed().verbose() and array.orig_img is not None
    assert np.array_equal(array.plot(), boxed().plot())
    back = array.to("cpu")
    assert torch.equal(back.boxes.data, ROWS) and torch.equal(array.cpu().masks.data, MASKS)
    assert boxed().to(torch.float64).boxes.conf.dtype == torch.float64
    assert boxed().boxes.numpy().xyxy.shape == (2, 4) and boxed().masks.cpu().data.shape == (2, *SHAPE)


def test_pictures_are_arrays_as_opencv_has_them_unless_asked(tmp_path, monkeypatch):
    array, image = boxed().plot(), boxed().plot(pil=True)
    assert array.shape == (*SHAPE, 3) and np.array_equal(array[..., ::-1], np.asarray(image))
    bare = boxed().plot(boxes=False, labels=False, masks=False)
    assert np.array_equal(bare, boxed().orig_img)
    looks = [
        boxed().plot(**look)
        for look in ({"conf": False}, {"labels": False}, {"masks": False}, {"line_width": 4})
    ]
    assert all(not np.array_equal(one, array) for one in looks)
    monkeypatch.chdir(tmp_path)
    assert boxed().save().name == "results_image.jpg" and (tmp_path / "results_image.jpg").is_file()
    assert boxed().save(filename=tmp_path / "b.png").is_file()
    assert not np.array_equal(classed().plot(), classed().orig_img)  # its classes are written on it


def test_nothing_found_is_written_on_the_picture():
    none = boxed(masks=False)[torch.zeros(2, dtype=torch.bool)]
    assert not np.array_equal(none.plot(), none.orig_img)
    assert np.array_equal(
        np.asarray(draw(IMAGE, none.boxes, {}, none="")), np.asarray(IMAGE.permute(1, 2, 0))
    )


def test_what_is_shown_needs_a_screen(monkeypatch):
    from PIL import Image

    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda picture: shown.append(picture.size))
    monkeypatch.setattr(screen.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrainError, match=r"no screen here .* save=True"):
        boxed().show()
    monkeypatch.setenv("DISPLAY", ":0")
    boxed().show()
    assert shown == [(100, 50)]


def test_a_text_has_no_picture():
    with pytest.raises(TrainError, match="translate has no picture"):
        Prediction("x", "translate", torch.zeros(2), text="hi").plot()
