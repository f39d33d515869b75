"""Raw samples become the inputs that training would have made of them, from the preparation alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unvanish.lab.data import DataError, decode, inputs, open_data
from unvanish.lab.tokens import END, UNKNOWN


@pytest.fixture
def pets(tmp_path):
    for name in ("cat", "dog"):
        for part in ("train", "val"):
            place = tmp_path / "pets" / part / name
            place.mkdir(parents=True)
            for i in range(2):
                pixels = np.random.default_rng(i).integers(0, 256, (24, 24, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path / "pets"


def kept(data):
    return json.loads(json.dumps(dict(data.preparation)))  # as a checkpoint would keep it


def test_images_in_every_form_give_what_validation_gave(pets):
    data = open_data(pets)
    expected = next(iter(data.val))[0][1:2]
    file = pets / "val/cat/1.png"
    picture = Image.open(file)
    array = np.array(picture)
    tensor = torch.tensor(array).permute(2, 0, 1)
    for source in (file, str(file), f"{pets}/val/cat/1*", picture, array[..., ::-1], tensor):
        [(_, x)] = inputs(kept(data), source)
        assert torch.allclose(x, expected)
    origins = [origin for origin, _ in inputs(kept(data), pets / "val")]
    names = ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    assert origins == [str(pets / "val" / name) for name in names]
    assert len(list(inputs(kept(data), [file, array]))) == 2


def test_other_shapes_are_cut_to_the_middle_and_scaled():
    preparation = {"input": "image", "channels": 1, "size": 4, "mean": [0.0], "std": [1.0]}
    wide = np.zeros((8, 20), np.uint8)
    wide[:, 6:14] = 255
    [(_, x)] = inputs(preparation, wide)
    assert x.shape == (1, 1, 4, 4) and (x == 1).all()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nowhere/*.png", "no image found"),
        (np.full((2, 2), -9.0), "are no picture"),
        (np.zeros(5, np.uint8), "must be"),
    ],
)
def test_what_is_no_image_is_told(source, told):
    preparation = {"input": "image", "channels": 3, "size": 4, "mean": [0.0] * 3, "std": [1.0] * 3}
    with pytest.raises(DataError, match=told):
        list(inputs(preparation, source))


def test_a_broken_image_is_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    preparation = {"input": "image", "channels": 3, "size": 4, "mean": [0.0] * 3, "std": [1.0] * 3}
    with pytest.raises(DataError, match=r"a.png cannot be read as an image"):
        list(inputs(preparation, tmp_path / "a.png"))


def test_texts_and_translations(tmp_path):
    rows = "\n".join(f"ein wort {i}\ta word {i}" for i in range(20))
    (tmp_path / "a.tsv").write_text(f"source\ttarget\n{rows}\n", encoding="utf-8")
    data = open_data(tmp_path / "a.tsv", task="translate", tokens="words")
    [(origin, x), (_, other)] = inputs(kept(data), ["ein wort", "ganz"])
    assert origin == "ein wort" and x.tolist() == [[*data.encode("ein wort"), END]]
    assert other.tolist() == [[UNKNOWN, END]]
    assert decode(kept(data), data.content.target_vocabulary.encode("a word")) == "a word"
    (tmp_path / "more.txt").write_text("ein\n\nwort\n", encoding="utf-8")
    assert [o.rsplit(":")[-1] for o, _ in inputs(kept(data), tmp_path / "more.txt")] == ["1", "3"]


def test_sequences():
    preparation = dict(open_data("adding", samples=8, val_samples=8).preparation)
    [(_, x)] = inputs(preparation, np.zeros((7, 2)))
    assert x.shape == (1, 7, 2)
    with pytest.raises(DataError, match=r"must have the shape \(T, 2\)"):
        list(inputs(preparation, np.zeros((7, 3))))


def test_images_for_detection_are_letterboxed_as_in_training(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images/a.png")
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    data = open_data({"kind": "yolo", "train": "images", "nc": 1}, imgsz=64, augment=False)
    expected = next(iter(data.train))[0]
    for source in (tmp_path / "images", pixels[..., ::-1]):
        [(_, x)] = inputs(kept(data), source)
        assert torch.equal(x, expected)
