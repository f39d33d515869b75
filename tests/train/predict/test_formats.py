"""Predictions written down: tables, JSON, label files that read back, crops."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
import types

import numpy as np
import pytest
import torch

from unvanish.lab.data.labels import Form, read_labels
from unvanish.train import TrainError
from unvanish.train.predict.boxes import Boxes
from unvanish.train.predict.masks import Masks
from unvanish.train.predict.prediction import Prediction
from unvanish.train.predict.probs import Probs

SHAPE = (50, 100)
ROWS = torch.tensor([[10.0, 5, 30, 25, 0.9, 1], [40.5, 10, 80, 45.25, 0.6, 0], [98, 49, 100, 50, 0.5, 1]])
NAMES = ("cat", "d/og")


def picture():
    made = torch.Generator().manual_seed(0)
    return torch.randint(0, 255, (3, *SHAPE), dtype=torch.uint8, generator=made)


def found(masks=False):
    data = torch.zeros(3, *SHAPE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(data, ROWS[:, :4].int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return Prediction(
        "street/image.png", "segment" if masks else "detect", torch.zeros(6, 3), NAMES,
        boxes=Boxes(ROWS, SHAPE), masks=Masks(data, SHAPE) if masks else None, image=picture(),
    )  # fmt: skip


def classes():
    probs = Probs(torch.tensor([0.2, 0.5, 0.3]))
    return Prediction("a.png", "classify", torch.zeros(3), ("a", "b", "c"), probs)


def test_a_prediction_is_as_long_as_its_boxes_and_gives_them_one_by_one():
    one, two, three = found(masks=True)
    assert len(found()) == 3 and [p.boxes.conf.item() for p in (one, two, three)] == pytest.approx(
        [0.9, 0.6, 0.5]
    )
    assert len(two) == 1 and two.masks.shape == (1, *SHAPE) and two.masks.area.item() == 40 * 35
    assert len(found()[:2]) == 2 and found()[:2].origin == "street/image.png"
    none = found()[ROWS[:, 4] > 2]
    assert len(none) == 0 and none and list(none) == [] and none.to_csv().count("\n") == 1
    assert len(classes()) == 1
    with pytest.raises(TrainError, match="no boxes to choose from"):
        classes()[0]


def test_tables_as_csv():
    rows = list(csv.DictReader(found().to_csv().splitlines()))
    assert list(rows[0]) == ["name", "class", "confidence", "x1", "y1", "x2", "y2"]
    assert [float(rows[1][k]) for k in ("class", "x1", "y1", "x2", "y2")] == [0, 40.5, 10, 80, 45.25]
    assert [r["name"] for r in rows] == ["d/og", "cat", "d/og"]
    best, *_ = csv.DictReader(classes().to_csv().splitlines())
    assert best["name"] == "b" and set(best) == {"name", "class", "confidence"}


def test_json_holds_boxes_and_outlines():
    (first, *_) = json.loads(found(masks=True).to_json())
    assert first["box"] == {"x1": 10, "y1": 5, "x2": 30, "y2": 25} and first["class"] == 1
    assert sorted(zip(first["segments"]["x"], first["segments"]["y"], strict=True)) == [
        (10, 5), (10, 25), (30, 5), (30, 25),
    ]  # fmt: skip
    assert json.loads(found().to_json())[2].keys() == {"name", "class", "confidence", "box"}
    assert json.loads(classes().to_json())[0]["name"] == "b"


class Frame:
    """Replaces pandas if it is not installed."""

    def __init__(self, data, columns):
        self.data, self.columns = data, columns


def test_tables_as_frames(monkeypatch):
    if importlib.util.find_spec("pandas") is None:
        monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=Frame))
    frame = found().to_df()
    assert list(frame.columns) == ["name", "class", "confidence", "x1", "y1", "x2", "y2"]
    assert list(classes().to_df().columns) == ["name", "class", "confidence"]
    if isinstance(frame, Frame):
        assert frame.data[1][3:] == [40.5, 10, 80, 45.25]
    else:
        assert frame.iloc[1]["x1"] == 40.5


def test_without_pandas_the_next_step_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(TrainError, match=r"to_df needs pandas, .* pip install pandas"):
        found().to_df()


def test_label_files_read_back_as_they_were(tmp_path):
    path = found().save_txt(tmp_path / "labels/a.txt")
    labels, problems = read_labels(path, Form(NAMES))
    assert not problems and labels.classes.tolist() == [1, 0, 1]
    np.testing.assert_allclose(labels.boxes, found().boxes.xywhn, atol=1e-6)
    words = found().save_txt(path, save_conf=True).read_text().splitlines()[0].split()
    assert words[0] == "1" and float(words[5]) == pytest.approx(0.9, abs=1e-6) and len(words) == 6


def test_outlines_are_written_where_there_are_masks(tmp_path):
    prediction = found(masks=True)
    prediction.masks.data[1] = False  # a mask that is empty has no line
    path = prediction.save_txt(tmp_path / "a.txt")
    labels, problems = read_labels(path, Form(NAMES, polygons=True))
    assert not problems and labels.classes.tolist() == [1, 1] and len(labels.polygons[0]) == 4
    np.testing.assert_allclose(labels.boxes[0], prediction.boxes.xywhn[0], atol=1e-6)
    lines = prediction.save_txt(path, save_conf=True).read_text().splitlines()
    assert [len(line.split()) for line in lines] == [1 + 2 * 4 + 1] * 2


def test_outlines_in_pixels_and_shares():
    masks = found(masks=True).masks
    assert [len(xy) for xy in masks.xy] == [4, 4, 4] and masks.xy[0].dtype == np.float32
    assert (masks.xy[0].min(0).tolist(), masks.xy[0].max(0).tolist()) == ([10, 5], [30, 25])
    np.testing.assert_allclose(masks.xyn[0] * [100, 50], masks.xy[0], rtol=1e-6)
    assert Masks(torch.zeros(1, 4, 4, dtype=torch.bool), (4, 4)).xy[0].shape == (0, 2)
    assert Masks(torch.zeros(0, 4, 4, dtype=torch.bool), (4, 4)).xy == []


def test_crops_lie_in_folders_of_their_class(tmp_path):
    from PIL import Image

    paths = found().save_crop(tmp_path)
    names = [str(p.relative_to(tmp_path)) for p in paths]
    assert names == ["d_og/image.jpg", "cat/image.jpg", "d_og/image2.jpg"]
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append(image.size)
    assert sizes == [(20, 20), (40, 36), (2, 1)]
    assert found().save_crop(tmp_path)[1].name == "image2.jpg"  # nothing is written over


@pytest.mark.parametrize("act", [lambda p, d: p.save_txt(d / "a.txt"), lambda p, d: p.save_crop(d)])
def test_classes_have_neither_labels_nor_crops(act, tmp_path):
    with pytest.raises(TrainError, match="a prediction of the task classify has no"):
        act(classes(), tmp_path)
