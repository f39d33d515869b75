"""Every argument of a training that users of other libraries type changes something, as it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.train.small_nets import DETECTOR
from torch import nn

from unvanish.lab.data import DataError, open_data
from unvanish.train import Model, TrainError
from unvanish.train.arguments import OPTIMIZERS, settle
from unvanish.train.loop.dropping import set_dropout
from unvanish.train.loop.fitting import fit_batch, measure_kept
from unvanish.train.loop.optim import ADAMS, build_optimizer
from unvanish.train.session import open_source
from unvanish.train.verbs import LABELS, MIXED

SCENES = {"kind": "shapes", "samples": 8, "val_samples": 4, "names": ["circle", "square", "triangle", "star"]}
BASE = {"batch": 2, "epochs": 20, "imgsz": 64, "mosaic": 0.0}
# each of what is done to scenes and their labels, away from its default
VALUES = {
    "mosaic": 1.0, "translate": 0.4, "scale": 0.0, "degrees": 45, "shear": 20, "perspective": 0.001,
    "fliplr": 1.0, "flipud": 1.0, "hsv_h": 0.5, "hsv_s": 0.0, "hsv_v": 0.0, "mixup": 1.0, "copy_paste": 1.0,
    "multi_scale": True, "rect": True, "single_cls": True, "classes": [1],
}  # fmt: skip
QUIET = {"verbose": False, "plots": False, "watch": False}


def batches(**arguments):
    source = open_source(SCENES, settle(BASE, arguments), "detect")
    return list(source.train)


def same(some, others):
    return all(
        a.shape == b.shape and torch.equal(a, b)
        for one, other in zip(some, others, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_the_table_is_whole():
    assert set(VALUES) == {*MIXED, *LABELS}


@pytest.mark.parametrize("name", [n for n in VALUES if n != "rect"])
def test_each_changes_the_batch(name):
    changed = batches(**{name: VALUES[name]})
    assert same(changed, batches(**{name: VALUES[name]}))  # chance is that of the seed
    assert not same(changed, batches())


def test_rect_makes_narrow_batches_without_mosaics(tmp_path):
    from PIL import Image

    for kind in ("train", "val"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        (tmp_path / "labels" / kind).mkdir(parents=True)
        for i, shape in enumerate([(30, 90), (90, 30), (30, 90), (90, 30)]):
            pixels = np.random.default_rng(i).integers(0, 255, (*shape, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / kind / f"{i}.png")
            (tmp_path / "labels" / kind / f"{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    data = {"path": str(tmp_path), "train": "images/train", "val": "images/val", "names": ["a"]}
    settings = {"imgsz": 96, "batch": 2, "scale": 0, "translate": 0}
    shapes = {}
    for rect in (False, True):
        source = open_source(data, settle(settings, {"rect": rect}), "detect")
        shapes[rect] = {tuple(x.shape[-2:]) for x, _ in source.train}
    assert shapes == {False: {(96, 96)}, True: {(32, 96), (96, 32)}}
    model = Model(DETECTOR)
    results = model.train(
        data, rect=True, epochs=1, nbs=2, project=str(tmp_path / "runs"), **settings, **QUIET
    )
    assert results.steps == 2


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n != "auto"])
def test_each_optimizer_is_the_one_that_is_named(name):
    kinds = {"sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop, **ADAMS}
    for word in (name, name.upper()):
        made = build_optimizer(nn.Linear(2, 2), settle({"optimizer": word}), "classify", 10)
        assert type(made) is kinds[name]


def test_dropout_reaches_every_layer_that_drops():
    net = nn.Sequential(
        nn.Dropout(0.1), nn.GRU(2, 2, 2), nn.GRU(2, 2), nn.MultiheadAttention(2, 1), nn.Dropout2d(0.3)
    )
    assert set_dropout(net, None) == 0 and net[0].p == 0.1
    assert set_dropout(net, 0.4) == 4
    assert (net[0].p, net[1].dropout, net[2].dropout, net[3].dropout, net[4].p) == (0.4, 0.4, 0.0, 0.4, 0.4)
    with pytest.raises(TrainError, match="no dropout layer"):
        set_dropout(nn.Linear(2, 2), 0.4)
    assert set_dropout(nn.Linear(2, 2), 0.0) == 0


def test_dropout_of_a_training(tmp_path):
    seen = []
    model = Model("resnet20.yaml")
    model.add_callback("on_train_start", lambda t: seen.append(t.plain.head.drop.p))
    model.train(
        "digits.yaml", epochs=1, fraction=0.02, val=False, dropout=0.3, project=str(tmp_path), **QUIET
    )
    assert seen == [0.3]


def test_the_largest_batch_that_fits(monkeypatch, tmp_path, capsys):
    from unvanish.train.loop import fitting

    net = nn.Sequential(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 4))
    before = [b.clone() for b in net.buffers()]
    x = torch.randn(4, 256)
    state = torch.get_rng_state()
    kept = measure_kept(net, [x])
    assert torch.equal(state, torch.get_rng_state())
    more, most = (measure_kept(net, [torch.randn(n, 256)]) for n in (8, 16))
    assert most - more == 2 * (more - kept) > 4 * 256 * 4  # what is kept grows with the batch
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), before, strict=True))
    found = {}
    for room in (1e6, 2e6, 1e12):
        monkeypatch.setattr(fitting, "find_room", lambda device, room=room: room)
        found[room], words = fit_batch(net, x, torch.device("cpu"), 16, 10_000)
        assert f"{found[room]} samples a step take about" in words
    assert found[1e6] < found[2e6] <= found[1e12] == 128
    assert fit_batch(net, x, torch.device("cpu"), 16, 9)[0] == 8
    results = Model(DETECTOR).train(SCENES, batch=-1, imgsz=64, epochs=1, project=str(tmp_path), **QUIET)
    assert "batch=-1: 8 samples a step" in capsys.readouterr().out and results.steps == 1
    with pytest.raises(TrainError, match="the batches are made by the loaders"):
        Model("resnet20.yaml").train(_loaders(), batch=-1, project=str(tmp_path), **QUIET)


def _loaders():
    from torch.utils.data import DataLoader, TensorDataset

    from unvanish.train import Loaders

    loader = DataLoader(TensorDataset(torch.rand(4, 1, 8, 8), torch.arange(4)), 2)
    return Loaders(loader, loader, facts={"classes": 4, "channels": 1, "size": 8})


def test_a_detector_of_one_class_is_judged_as_one(tmp_path):
    model = Model(DETECTOR)
    results = model.train(SCENES, single_cls=True, imgsz=64, epochs=1, project=str(tmp_path), **QUIET)
    assert model.names == ["object"] and results.best is not None
    again = Model(results.best).val(SCENES, **QUIET)  # of data with four classes
    assert again.metrics == pytest.approx(results.metrics, abs=1e-6)
    part = Model(results.best).val(SCENES, classes=["star"], **QUIET)
    assert part.tables["objects"].sum() < again.tables["objects"].sum()
    assert Model(results.best).predict(np.zeros((64, 64, 3), np.uint8))[0].names == {0: "object"}


def test_what_cannot_have_an_effect_is_refused_before_anything_is_written(tmp_path):
    for wrong in ({"degrees": 10}, {"classes": [1]}, {"mosaic": 1.0}):
        with pytest.raises(TrainError, match="is for boxes"):
            Model("resnet20.yaml").train("digits.yaml", project=str(tmp_path), **wrong)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="there are circle, square"):
        Model(DETECTOR).train(SCENES, classes=["moon"], project=str(tmp_path), **QUIET)


def test_fraction_uses_a_share(tmp_path):
    assert len(open_source(SCENES, settle(BASE, {"fraction": 0.5}), "detect").train.dataset) == 4
    assert len(open_data(SCENES, task="detect", imgsz=64).train.dataset) == 8
