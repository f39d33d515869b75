"""Sets of labelled images that others made: learnt from, or refused with the likely form; never neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unvanish.lab.data import DataError, open_data

OUTLINE = "0 0.2 0.2 0.7 0.2 0.7 0.6 0.2 0.6"


def images(
    folder: Path, line: str | bytes | None, count: int = 12, beside: bool = False
) -> dict[str, object]:
    """A set whose images of 64 x 48 pixels have the same label file each; its description."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        if line is not None:
            content = line if isinstance(line, bytes) else line.encode()
            (folder / ("images" if beside else "labels") / f"{i}.txt").write_bytes(content)
    return {"kind": "yolo", "path": str(folder), "train": "images", "names": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1 0.5 0.5 0.25 0.5", ""),
        ("1,0.5,0.5,0.25,0.5", "commas"),
        ("1 32 24 16 24", "pixel coordinates"),
        ("dog 0.5 0.5 0.25 0.5", "names of classes"),
        ("1 0.5 0.5 0.25 0.5 0.8", "a confidence"),
        ("1 0.5 0.5 0.25 0.5\n".encode("utf-16"), "other encoding"),
        ("1 0.375 0.25 0.625 0.25 0.625 0.75 0.375 0.75", ""),
    ],
)
def test_what_is_read(tmp_path, line, told):
    data = open_data(images(tmp_path / "a", line), imgsz=64, batch=12, augment=False)
    _, y = next(iter(data.train))
    assert len(y) == 12 and set(y[:, 1].tolist()) == {1.0}
    np.testing.assert_allclose(y[0, 2:], [0.5, 0.5, 0.25, 0.375], atol=1e-2)
    assert set(data.problems.counts) == ({told} if told else set())


def test_labels_beside_their_images(tmp_path):
    data = open_data(images(tmp_path / "a", "1 0.5 0.5 0.25 0.5", beside=True), imgsz=64, batch=12)
    assert data.problems.counts == {"labels beside images": 12} and len(next(iter(data.train))[1]) > 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (None, "12 x no label file .*an image without objects has an empty one"),
        ("", "all 12 label files are empty"),
        ("5 0.5 0.5 0.2 0.2", "class 5, but the classes are 0 to 1.*the first one is class 0"),
        ("2 0.5 0.5 0.2 0.2", "class 2"),
        ("0 500 500 200 200", "coordinates are shares"),
        ("0 0.7 0.7 0.9 0.95", "12 of 12 boxes reach beyond .*two corners"),
        ("0 0.5 0.5", "`class x y w h`"),
        ("<annotation><object>", "XML or JSON must be converted"),
        ('{"shapes": []}', "XML or JSON must be converted"),
        ("bird 0.5 0.5 0.2 0.2", "no class 'bird'.*`names` must list every class"),
        (b"\x00\x01\x02\x03\x04", "a label file is text"),
    ],
)
def test_what_nothing_can_be_learnt_from(tmp_path, line, told):
    with pytest.raises(DataError, match=told):
        open_data(images(tmp_path / "a", line), imgsz=64)


def test_boxes_are_no_outlines(tmp_path):
    with pytest.raises(DataError, match=r"task segment.*task: detect"):
        open_data(images(tmp_path / "a", "0 0.5 0.5 0.2 0.2"), "segment", imgsz=64)
    assert open_data(images(tmp_path / "b", OUTLINE), "segment", imgsz=64).sizes == {"train": 12}


def test_half_of_the_images_are_enough(tmp_path):
    spec = images(tmp_path / "a", "0 0.5 0.5 0.2 0.2")
    for i in range(6):
        (tmp_path / "a/labels" / f"{i}.txt").unlink()
    assert open_data(spec, imgsz=64).problems.counts == {"no label file": 6}
    (tmp_path / "a/labels/6.txt").unlink()
    with pytest.raises(DataError, match="only 5 of 12 images"):
        open_data(spec, imgsz=64)
    for i in range(7):
        (tmp_path / "a/labels" / f"{i}.txt").write_text("")  # background, said by an empty file
    assert open_data(spec, imgsz=64).sizes == {"train": 12}


EXPORTED = """\
train: ../train/images
val: ../valid/images
test: ../test/images

nc: 2
names: ['cat', 'dog']

roboflow:
  workspace: someone
  project: pets
channels: 3
vall: x
"""


def test_a_set_as_it_was_exported(tmp_path):
    for part in ("train", "valid"):
        images(tmp_path / part, "1 0.5 0.5 0.25 0.5", 4)
    (tmp_path / "data.yaml").write_text(EXPORTED)
    data = open_data(tmp_path / "data.yaml", imgsz=64)
    assert data.sizes == {"train": 4, "val": 4}
    assert [str(p).partition("data.yaml:")[2] for p in data.problems] == [
        "8: 'roboflow' is not used",
        "11: 'channels' is not used",
        "12: 'vall' is not used (did you mean 'val'?)",
    ]


def test_poses_are_refused(tmp_path):
    images(tmp_path / "train", "0 0.5 0.5 0.25 0.5 0.1 0.1 0.2 0.2", 4)
    (tmp_path / "data.yaml").write_text("train: train/images\nnames: [man]\nkpt_shape: [2, 2]\n")
    with pytest.raises(DataError, match=r"data.yaml:3: poses are not there"):
        open_data(tmp_path / "data.yaml")
