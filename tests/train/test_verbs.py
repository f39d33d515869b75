"""Every argument that a verb takes has an effect there; any other one is refused in a line."""

from __future__ import annotations

import numpy as np
import pytest

from unvanish.lab.models import build, read
from unvanish.train import Model, TrainError
from unvanish.train.arguments import NAMES, settle
from unvanish.train.predict.keeping import Keeping
from unvanish.train.predict.predict import predict
from unvanish.train.verbs import ABSENT, ELSEWHERE, FILES, FLAGS, INSTEAD, TAKEN, require_taken, require_task


@pytest.mark.parametrize("verb", TAKEN)
def test_each_argument_is_taken_or_refused(verb):
    for name in NAMES:
        if name in TAKEN[verb]:
            require_taken(verb, {name: 1})
        else:
            with pytest.raises(TrainError, match=f"{name}|there is no argument"):
                require_taken(verb, {name: 1})
    assert set(TAKEN[verb]) <= {*NAMES, *FLAGS, *FILES}


def test_what_is_false_is_not_asked_for():
    require_taken("val", {"plots": False, "watch": False, "conf": False})
    with pytest.raises(TrainError, match="plots does nothing in val"):
        require_taken("val", {"plots": True})
    with pytest.raises(TrainError, match="no argument"):
        require_taken("val", {"plot": False})


@pytest.mark.parametrize(("verb", "name"), INSTEAD)
def test_a_usual_argument_that_is_not_there_says_what_to_do(verb, name):
    with pytest.raises(TrainError, match=f"{verb} has no argument '{name}'; "):
        require_taken(verb, {name: 1})


@pytest.mark.parametrize(
    ("verb", "name", "told"),
    [
        ("predict", "mosaic", "mosaic does nothing in predict, only in train"),
        ("val", "lr0", "lr0 does nothing in val"),
        ("train", "rgb", "train has no argument 'rgb'; files say themselves"),
        ("export", "half", None),
        ("predict", "agnostic-nms", None),
        ("predict", "save_tx", "did you mean 'save_txt'"),
        ("val", "single_cls", None),
        ("train", "tracker", "train has no argument 'tracker': objects are not tracked; predict"),
        ("train", "pose", "poses are not there; the tasks for pictures are classify, detect, segment"),
        ("train", "erasing", "shifted and mirrored by their data set"),
    ],
)
def test_what_is_said(verb, name, told):
    if told is None:
        require_taken(verb, {name: 1})
        return
    with pytest.raises(TrainError, match=told):
        require_taken(verb, {name: 1})


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_others_have_is_told_in_a_line(name):
    with pytest.raises(TrainError, match=f"no argument '{name}': ") as caught:
        require_taken("train", {name: 1})
    assert "\n" not in str(caught.value)
    require_taken("train", {name: False})


@pytest.mark.parametrize("name", [*ABSENT, "trian"])
def test_methods_that_are_not_there(name):
    with pytest.raises(AttributeError, match=f"Model has no '{name}'") as caught:
        getattr(Model("yolo11n.yaml"), name)
    assert (": " in str(caught.value)) == (name in ABSENT)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda: Model("yolo11n-pose.yaml"), "yolo11n-pose.yaml: poses are not there"),
        (lambda: Model("yolo11s-obb.pt"), "oriented boxes are not there; the tasks for pictures are"),
        (lambda: Model("yolo11n.yaml", task="pose"), "task=pose: poses are not there"),
        (lambda: list(predict(Model("yolo11n.yaml"), 0, settle({}), Keeping())), "a camera is not opened"),
    ],
)
def test_tasks_that_are_not_there(act, told):
    with pytest.raises(TrainError, match=told) as caught:
        act()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("verb", "task", "given", "told"),
    [
        ("train", "classify", {"mosaic": 0.5}, "mosaic is for boxes"),
        ("train", "classify", {"mosaic": 0, "rect": False, "classes": None}, None),
        ("train", "sentiment", {"single-cls": True}, "single-cls is for boxes|single_cls is for boxes"),
        ("train", "detect", {"label_smoothing": 0.1}, "label_smoothing does nothing for detect"),
        ("train", "segment", {"degrees": 10, "copy_paste": 1}, None),
        ("predict", "classify", {"conf": 0.5}, "conf is for boxes"),
        ("predict", "classify", {"save_crop": True}, "save_crop is for boxes"),
        ("val", "detect", {"batch": -1}, "batch=-1 is measured for a training"),
        ("train", "detect", {"batch": -1}, None),
    ],
)
def test_what_has_no_effect_for_a_task_is_refused(verb, task, given, told):
    if told is None:
        require_task(verb, task, given)
        return
    with pytest.raises(TrainError, match=told):
        require_task(verb, task, given)


def test_texts_are_no_pictures():
    for name in ("imgsz", "augment", "save", "show", "rgb", "batch"):
        require_task("predict", "sentiment", {name: False}, pictures=False)
        with pytest.raises(TrainError, match=f"{name}=.* is for pictures"):
            require_task("predict", "sentiment", {name: 64}, pictures=False)


@pytest.fixture(scope="module")
def detector():
    """A detector with random weights, as if it had been trained on shapes."""
    spec = read("yolo11n.yaml")
    model = Model(dict(spec.document))
    facts = {"classes": 4, "channels": 3, "size": 64}
    names = ["circle", "square", "triangle", "star"]
    model.network, model.facts, model.loaded = build(spec, **facts).eval(), facts, "here"
    model.about = {
        "facts": facts,
        "names": names,
        "preparation": {"input": "letterbox", **facts, "names": names},
    }
    return model


PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
LOOSE = {"conf": 1e-6, "verbose": False}


def test_predictions_are_written_where_it_is_said(detector, tmp_path):
    save = {"save": True, "save_txt": True, "save_conf": True, "save_crop": True}
    for _ in range(2):
        (found,) = detector.predict(PICTURE, project=str(tmp_path), **save, **LOOSE, max_det=3)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["predict", "predict2"]
    files = sorted(str(f.relative_to(tmp_path / "predict")) for f in (tmp_path / "predict").rglob("*.*"))
    assert [f for f in files if not f.startswith("crops")] == ["array.jpg", "labels/array.txt"]
    rows = (tmp_path / "predict/labels/array.txt").read_text().splitlines()
    assert len(rows) == len(found) == 3 and all(len(row.split()) == 6 for row in rows)
    assert sum(f.startswith("crops") for f in files) == 3


def test_pictures_of_one_name_overwrite_each_other_never(detector, tmp_path, capsys):
    from PIL import Image

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(PICTURE).save(tmp_path / folder / "1.png")
    detector.predict(tmp_path, save_txt=True, project=str(tmp_path / "out"), **LOOSE)
    assert sorted(f.name for f in (tmp_path / "out/predict/labels").iterdir()) == ["1.txt", "1_2.txt"]
    assert f"2 predictions written to {tmp_path}/out/predict" in capsys.readouterr().out


def test_only_the_classes_that_are_asked_for(detector):
    (every,) = detector.predict(PICTURE, **LOOSE)
    for asked in (1, "square", [1]):
        (found,) = detector.predict(PICTURE, classes=asked, **LOOSE)
        assert len(found) == int((every.boxes.cls == 1).sum()) and set(found.boxes.cls.tolist()) <= {1.0}


def test_the_size_and_the_order_of_colours_count(detector):
    one, other, turned = (
        detector.predict(PICTURE, **LOOSE, **more)[0].boxes.data
        for more in ({}, {"imgsz": 96}, {"rgb": True})
    )
    assert not np.array_equal(one.numpy(), other.numpy()) and not np.array_equal(one.numpy(), turned.numpy())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"classes": 9}, "classes=9: there are circle, square"),
        ({"classes": "moon"}, "there are circle"),
        ({"show": 3}, "show=3 is not true or false"),
        ({"batch": -1}, "batch=-1 is measured for a training"),
        ({"save": "yes"}, "save='yes' is not true or false"),
        ({"save_conf": True}, "give save_txt too"),
        ({"epochs": 3}, "epochs does nothing in predict"),
    ],
)
def test_wrong_values_are_refused(detector, arguments, told):
    with pytest.raises(TrainError, match=told):
        detector.predict(PICTURE, **arguments)
