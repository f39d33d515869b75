"""Detectors from YAML to mAP: trained, validated, resumed; a short run says what to expect of it."""

from __future__ import annotations

import json
import math

import pytest
import torch

import unvanish
from unvanish.lab.data import open_data
from unvanish.train import Model, TrainError
from unvanish.train.arguments import Arguments, settle
from unvanish.train.loop.validation import raw_maps

QUIET = {"verbose": False, "plots": False, "watch": False}
SCENES = {
    "kind": "shapes",
    "samples": 16,
    "val_samples": 8,
    "names": ["circle", "square", "triangle", "star"],
}
# three levels of a small net: a detector that trains in seconds
SMALL = {
    "name": "tiny", "task": "detect", "activation": "silu", "norm": "steady",
    "layers": [
        {"module": "Conv", "out": 16, "stride": 2}, {"module": "Conv", "out": 32, "stride": 2},
        {"name": "p3", "module": "Conv", "out": 48, "stride": 2},
        {"name": "p4", "module": "Conv", "out": 64, "stride": 2},
        {"name": "p5", "module": "Conv", "out": 64, "stride": 2},
        {"module": "Detect", "from": ["p3", "p4", "p5"]},
    ],
}  # fmt: skip


def scenes(batch=8, **settings):
    return open_data(SCENES | settings, task="detect", imgsz=64, batch=batch)


def test_the_name_that_users_type():
    assert unvanish.YOLO is unvanish.Model


def test_the_task_has_defaults_of_its_own():
    found = Model("yolo11n.yaml").settle(None, {})
    assert (found.batch, found.nbs, found.steps_of, found.ramp) == (16, 64, 4, True)
    assert (found.clip, found.ema_decay, found.warmup_epochs, found.warmup_momentum) == (10, 0.9999, 3, 0.8)
    assert Model("yolo11n.yaml").settle(None, {"nbs": 16}).steps_of == 1
    assert Model("resnet20.yaml").settle(None, {}).batch == 64


def test_the_gains_of_its_losses_can_be_given(tmp_path):
    from unvanish.lab.tasks import task

    a = settle({"box": 2, "cls": 0.25})
    assert task("detect").loss(**a.gains(task("detect"))).gains == {"box": 2, "class": 0.25, "dfl": 1.5}
    assert task("segment").loss(**a.gains(task("segment"))).gains["mask"] == 2  # as boxes
    assert task("segment").loss(box=2, mask=0.5).gains["mask"] == 0.5
    assert Arguments().gains(task("classify")) == {}
    with pytest.raises(TrainError, match="leave it out"):
        Model("resnet20.yaml").train("digits.yaml", cls=2, project=str(tmp_path), **QUIET)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TrainError, match="box, cls: the loss of the task classify has no such part; leave"):
        a.gains(task("classify"))
    with pytest.raises(TrainError, match=r"mask: .* detect has no such part \(it has box, cls, dfl\)"):
        settle({"mask": 1}).gains(task("detect"))


def test_it_trains_validates_and_says_what_few_steps_are_worth(tmp_path):
    model = Model("yolo11n.yaml")
    settings = {**QUIET, "watch": True, "project": str(tmp_path)}
    results = model.train(scenes(), epochs=2, batch=8, **settings)
    assert list(results.metrics) == ["mAP50-95", "mAP50", "precision", "recall"] and math.isfinite(
        results.loss
    )
    assert results.fitness == results.metrics["mAP50-95"]
    verdict = f"only {results.steps} optimizer steps; expect mAP near 0"
    assert verdict in results.verdict and verdict in str(results)
    assert verdict in json.loads((results.save_dir / "results.json").read_text())["verdict"]
    assert results.healthy, results.findings
    for row in results.rows:
        for where in ("train", "val"):
            parts = [row[f"{where}/{name}_loss"] for name in ("box", "cls", "dfl")]
            assert sum(parts) == pytest.approx(row[f"{where}/loss"], rel=1e-4) and min(parts) > 0
    head = (results.save_dir / "results.csv").read_text().splitlines()[0].split(",")
    assert {"train/box_loss", "val/dfl_loss"} <= set(head)
    again = Model(results.best).val(scenes(), **QUIET)
    assert again.metrics == pytest.approx(results.metrics, abs=1e-6)
    assert again.loss == pytest.approx(results.loss, rel=1e-4)
    assert model.network(torch.rand(1, 3, 64, 64)).shape == (1, 8, 84)


@pytest.mark.slow
def test_a_small_detector_learns(tmp_path):
    model = Model(SMALL)
    settings = {"lr0": 0.005, "nbs": 8, "warmup_epochs": 1, "project": str(tmp_path), **QUIET}
    data = open_data(
        {**SCENES, "samples": 48, "val_samples": 16, "most": 1}, task="detect", imgsz=64, batch=8
    )
    results = model.train(data, epochs=25, batch=8, **settings)
    assert "OPT005" not in {f.code for f in results.findings}  # clipping every step belongs to it
    assert results.metrics["mAP50"] > 0.15, results.metrics
    assert results.metrics["mAP50"] == pytest.approx(float(results.tables["ap50"].nanmean()))
    assert results.rows[-1]["train/loss"] < 0.8 * results.rows[0]["train/loss"]


def test_a_resumed_run_makes_the_same_steps(tmp_path):
    settings = {"batch": 4, "nbs": 16, "epochs": 3, "warmup_epochs": 2, **QUIET}

    def trained(name, **more):
        model = Model(SMALL)
        model.train(scenes(batch=4), project=str(tmp_path), name=name, **{**settings, **more})
        return model.network.state_dict()

    whole = trained("whole")

    def stop(trainer):
        if trainer.record.epoch == 1:
            trainer.stop = True

    model = Model(SMALL)
    model.add_callback("on_train_epoch_end", stop)
    model.train(scenes(batch=4), project=str(tmp_path), name="half", **settings)
    again = Model(SMALL)
    again.train(scenes(batch=4), resume=str(tmp_path / "half"), **QUIET)
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_biases_warm_up_from_above_and_the_rest_from_below(tmp_path):
    seen = []

    def look(trainer):
        groups = trainer.inner.param_groups
        rates = {group["biases"]: group["lr"] for group in groups}
        seen.append((rates[False], rates[True], groups[0]["momentum"]))

    model = Model(SMALL)
    model.add_callback("optimizer_step", look)
    settings = {"epochs": 6, "batch": 8, "nbs": 8, "optimizer": "sgd", "schedule": "constant", **QUIET}
    model.train(scenes(), warmup_epochs=2, val=False, project=str(tmp_path), **settings)
    shares = [min(1, (step + 1) / 5) for step in range(12)]  # of four steps of warm-up
    assert [w for w, _, _ in seen] == pytest.approx([0.01 * s for s in shares])
    assert [b for _, b, _ in seen] == pytest.approx([0.1 * (1 - s) + 0.01 * s for s in shares])
    assert [m for *_, m in seen][::11] == pytest.approx([0.8, 0.937])


def test_gradients_are_those_of_the_sum(tmp_path):
    norms = {}
    for batch in (4, 8):
        model = Model(SMALL)
        seen = []
        model.add_callback("optimizer_step", lambda trainer, seen=seen: seen.append(trainer.guard.norm))
        settings = {"nbs": batch, "epochs": 1, "name": f"b{batch}", "project": str(tmp_path), **QUIET}
        model.train(scenes(batch, samples=8), batch=batch, augment=False, **settings)
        norms[batch] = seen[0]
    assert 1.3 < norms[8] / norms[4] < 3  # about twice, as there are twice the images


def test_a_side_that_cannot_be_halved_is_rounded_up(capsys):
    from unvanish.train.arguments import fit_side

    given = [(160, "detect"), (100, "detect"), (28, "classify"), (None, "detect")]
    assert [fit_side(*side) for side in given] == [160, 128, 28, None]
    assert "imgsz=100 is not a multiple of 32; using 128" in capsys.readouterr().out


def test_heads_decode_again_after_a_validation():
    net = Model(SMALL).build(classes=4, size=64).eval()
    with raw_maps(net):
        assert isinstance(net(torch.rand(1, 3, 64, 64)), list)
    assert net(torch.rand(1, 3, 64, 64)).shape == (1, 8, 84)


def test_check_finds_nothing_in_a_healthy_detector():
    diagnosis = Model("yolo11n.yaml").check(scenes(batch=4), batch=4)
    assert [f.code for f in diagnosis.findings if f.severity != "note"] == []


def known_detector(rows):
    """A model whose network says just these rows (n, 4 + 2) of centre, size and scores, on squares of 64."""

    class Fixed(torch.nn.Module):
        def forward(self, x):
            return torch.tensor(rows).T[None].expand(len(x), -1, -1)

    model = Model(Fixed(), task="detect")
    preparation = {"input": "letterbox", "classes": 2, "size": 64}
    model.about = {"preparation": preparation, "names": ["cat", "dog"], "task": "detect"}
    return model


def test_predictions_lie_on_the_image_as_it_was_given(tmp_path):
    from PIL import Image

    image = torch.zeros(50, 100, 3, dtype=torch.uint8).numpy()  # in a square of 64: 32 rows from row 16 on
    rows = [[32, 32, 32, 16, 0.9, 0.1], [33, 32, 32, 16, 0.8, 0.1], [60, 20, 20, 30, 0.2, 0.7]]
    model = known_detector(rows)
    (found,) = model.predict(image)
    boxes = found.boxes
    assert boxes.conf.tolist() == pytest.approx([0.9, 0.7]) and boxes.cls.tolist() == [0, 1]
    assert boxes.xyxy[0].tolist() == pytest.approx([25, 12.5, 75, 37.5])
    assert boxes.xyxy[1].tolist() == pytest.approx([78.125, 0, 100, 29.6875])  # cut at the edges
    assert boxes.xywh[0].tolist() == pytest.approx([50, 25, 50, 25])
    assert boxes.xyxyn[0].tolist() == pytest.approx([0.25, 0.25, 0.75, 0.75])
    assert boxes.xywhn[0].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5])
    assert found.orig_shape == (50, 100) and len(boxes) == 2 and boxes.shape == (2, 6)
    assert [int(b.cls) for b in boxes] == [0, 1] and str(found).startswith("array: 1 cat, 1 dog (")
    assert found.summary()[1]["name"] == "dog" and found.summary()[0]["box"]["x2"] == pytest.approx(75)
    assert len(model.predict(image, conf=0.8)[0].boxes) == 1
    assert len(model.predict(image, iou=0.99)[0].boxes) == 3
    assert len(model.predict(image, max_det=1)[0].boxes) == 1
    drawn = Image.open(found.save(tmp_path / "found.png"))
    assert drawn.size == (100, 50)
    assert drawn.getpixel((25, 30)) != (0, 0, 0) and drawn.getpixel((50, 25)) == (0, 0, 0)


def test_predictions_of_a_stream_are_made_one_by_one():
    import numpy as np

    asked = []

    def camera():
        while True:
            asked.append(1)
            yield np.zeros((50, 100, 3), np.uint8)

    stream = known_detector([[32.0, 32.0, 32.0, 16.0, 0.9, 0.1]]).predict(camera(), stream=True)
    assert not asked
    assert [len(next(stream).boxes) for _ in range(2)] == [1, 1] and len(asked) == 2
    stream.close()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg: no image found"),
        ("http://127.0.0.1:9/a.jpg", "could not be fetched"),
        ({}, "a source of type dict is not an image"),
    ],
)
def test_a_source_that_cannot_be_read_is_reported(monkeypatch, source, message):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(TrainError, match=message):
        known_detector([[32.0, 32.0, 32.0, 16.0, 0.9, 0.1]]).predict(source)


def test_nothing_found_is_said(tmp_path):
    model = known_detector([[32.0, 32.0, 32.0, 16.0, 0.1, 0.1]])
    (found,) = model.predict(torch.zeros(3, 64, 64, dtype=torch.uint8))
    assert len(found.boxes) == 0 and "nothing found" in str(found) and found.summary() == []
    assert found.plot().shape == (64, 64, 3)


def test_a_trained_detector_predicts_from_its_checkpoint(tmp_path):
    model = Model(SMALL)
    results = model.train(scenes(), epochs=1, batch=8, project=str(tmp_path), **QUIET)
    again = Model(results.best)
    picture = scenes().content.val.image(0)
    (found,) = again.predict(picture, conf=0.0001)
    assert again.names == ["circle", "square", "triangle", "star"] and len(found.boxes) > 0
    assert found.boxes.xyxy.min() >= 0 and found.boxes.xyxy.max() <= 64
    wide = again.predict(picture, conf=0.0001, imgsz=96)[0]
    assert wide.output.shape[1] == 12 * 12 + 6 * 6 + 3 * 3


SEGMENTER = {
    **SMALL,
    "name": "tiny-seg",
    "task": "segment",
    "layers": [
        *SMALL["layers"][:-1],
        {"module": "Segment", "from": ["p3", "p4", "p5"], "masks": 8, "prototypes": 16},
    ],
}


def outlined(batch=8, **settings):
    return open_data(SCENES | settings, task="segment", imgsz=64, batch=batch)


def test_a_segmenter_trains_validates_and_predicts_masks(tmp_path):
    model = Model(SEGMENTER)
    results = model.train(outlined(), epochs=2, batch=8, project=str(tmp_path), **QUIET)
    names = ["mAP50-95", "mAP50", "precision", "recall"]
    assert list(results.metrics) == [*names, *(f"mask {name}" for name in names)]
    assert results.fitness == results.metrics["mask mAP50-95"]
    again = Model(results.best)
    assert again.val(outlined(), **QUIET).loss == pytest.approx(results.loss, rel=1e-4)
    picture = torch.zeros(3, 40, 80, dtype=torch.uint8)
    (found,) = again.predict(picture, conf=0.0001, max_det=5)
    assert found.masks.shape == (len(found.boxes), 40, 80) and len(found.boxes) > 0
    assert found.plot(pil=True).size == (80, 40)
    (none,) = again.predict(picture, conf=1.0)
    assert none.masks.shape == (0, 40, 80)


def test_masks_lie_on_the_image_as_it_was_given():
    from unvanish.train.predict.masks import place_masks

    prototype = torch.full((1, 16, 16), -5.0)
    prototype[0, 6:10, 4:8] = 5.0  # in a square of 64: x from 16 to 32, y from 24 to 40
    rows = torch.tensor([[0.0, 16, 64, 48, 0.9, 0, 1.0], [0, 16, 20, 48, 0.8, 0, 1.0]])
    masks = place_masks(rows, prototype, (50, 100), 64)  # its image lies in rows 16 to 48
    ys, xs = masks.data[0].nonzero().T
    assert [int(v) for v in (xs.min(), xs.max(), ys.min(), ys.max())] == pytest.approx(
        [25, 49, 12, 37], abs=2
    )
    assert masks.data[1].nonzero()[:, 1].max() < 32  # cut to its box
    assert masks.area.tolist() == [int(m.sum()) for m in masks.data] and len(masks) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("document", [SMALL, SEGMENTER], ids=["detect", "segment"])
def test_an_export_decodes_as_the_network_does(tmp_path, document):
    model = Model(document)
    model.build(classes=4, size=64)
    model.about = {"facts": {"classes": 4, "size": 64}}
    loaded = torch.jit.load(str(model.export("torchscript", tmp_path / "net.torchscript")))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model.network.eval()(x))


def test_weights_under_their_published_names_are_loaded(tmp_path, capsys):
    from unvanish.lab.models.published_names import to_published

    donor = Model("yolo11n.yaml").build(classes=80, size=64)
    weights = {to_published(donor, name): value for name, value in donor.state_dict().items()}
    torch.save(weights, tmp_path / "published.pt")
    model = Model("yolo11n.yaml")
    model.build(classes=80, size=64)
    model.facts = {"classes": 80, "size": 64}
    model.load(tmp_path / "published.pt", strict=True)
    assert all(torch.equal(v, donor.state_dict()[k]) for k, v in model.network.state_dict().items())
    other = Model("yolo11n.yaml")
    other.build(classes=4, size=64)
    other.load(tmp_path / "published.pt")
    assert "keep their initial values" in capsys.readouterr().out  # the classes' layers
    assert torch.equal(other.network.state_dict()["0.conv.weight"], weights["model.0.conv.weight"])
