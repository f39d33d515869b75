"""Ultralytics' real training: no bit changes, planted faults are named; its objects and batches for check."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unvanish
from unvanish.probes.errors import CheckError

pytestmark = [pytest.mark.filterwarnings("ignore", "error:unvanish"), pytest.mark.slow]
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")

with warnings.catch_warnings():  # Ultralytics and what it imports
    warnings.simplefilter("ignore")
    pytest.importorskip("ultralytics")
    from PIL import Image
    from ultralytics import YOLO

    from unvanish.integrations.ultralytics import UltralyticsWatch


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 pictures of noise with a bright square each, and their YAML."""
    root, numbers = tmp_path_factory.mktemp("squares"), np.random.RandomState(0)
    for part, count in (("train", 32), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir(parents=True)
        for k in range(count):
            picture, (x, y) = numbers.randint(0, 80, (64, 64, 3)).astype("uint8"), numbers.randint(0, 44, 2)
            picture[y : y + 20, x : x + 20] = 230
            Image.fromarray(picture).save(root / "images" / part / f"{k}.png")
            box = f"0 {(x + 10) / 64} {(y + 10) / 64} 0.3125 0.3125\n"
            (root / "labels" / part / f"{k}.txt").write_text(box)
    (root / "data.yaml").write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [square]\n")
    train(root / "data.yaml")  # writes its cache
    return root / "data.yaml"


def train(data: Path, broken: int = -1, plant: Any = None, **options: Any) -> Any:
    torch.manual_seed(0)
    model, losses = YOLO("yolo11n.yaml"), []

    def note(trainer: Any) -> None:
        losses.append(float(trainer.loss))

    def spoil(trainer: Any) -> None:
        if len(losses) == broken:
            first = trainer.model.model[0]
            handle = first.register_forward_hook(lambda m, a, out: (handle.remove(), out * torch.nan)[1])

    model.add_callback("on_train_batch_end", note)
    model.add_callback("on_train_batch_start", spoil)
    if plant is not None:
        model.add_callback("on_pretrain_routine_end", plant)
    watch = UltralyticsWatch(model, **options) if options else None
    size = {"imgsz": 64, "batch": 8, "nbs": 8, "workers": 0, "epochs": 2, "warmup_epochs": 0, "seed": 0}
    quiet = {
        "val": False,
        "plots": False,
        "verbose": False,
        "exist_ok": True,
        "project": data.parent / "runs",
    }
    model.train(data=data, device="cpu", optimizer="SGD", lr0=0.01, **size, **quiet)
    return losses, watch, model


def test_no_bit_changes(squares) -> None:
    plain, _, _ = train(squares)
    watched, ours, _ = train(squares, on_finding="silent")
    assert watched == plain
    assert (ours.watch.steps, ours.watch.findings, ours.watch.closed) == (8, [], True)
    assert ours.watch.failure == ""


def test_a_tower_of_sigmoids_is_named(squares, hear, capsys) -> None:
    def plant(trainer: Any) -> None:
        trainer.model.model[0].act = nn.Sequential(*[nn.Sigmoid() for _ in range(12)])

    records = hear("ultralytics")
    _, ours, model = train(squares, plant=plant, on_finding="log")
    assert ours.watch.findings[0].code == "DEP001"  # what twelve sigmoids on end do
    assert ours.watch.findings[0].sites[0].startswith("model.0.act")
    told = [r for r in records if "DEP001" in r.getMessage()]
    assert [r.levelname for r in told] == ["ERROR"] and "DEP001" not in capsys.readouterr().err
    head, *rows = model.trainer.csv.read_text().splitlines()
    assert head.split(",")[-2:] == ["unvanish/gradient_norm", "unvanish/warnings"]
    assert [len(row.split(",")) for row in rows] == [len(head.split(","))] * 2
    assert float(rows[-1].split(",")[-1]) >= 1


def test_a_batch_of_nan_is_survived(squares) -> None:
    losses, ours, model = train(squares, broken=3, on_finding="guard")
    assert np.isnan(losses[3]) and np.isfinite(losses[-1])
    assert "NUM001" in [f.code for f in ours.watch.findings]
    assert all(bool(torch.isfinite(p).all()) for p in model.trainer.model.parameters())


def test_yolo_objects_and_their_batches_are_examined(tmp_path) -> None:
    torch.manual_seed(0)
    model = YOLO("yolo11n.yaml")
    boxes = torch.tensor([[0.5, 0.5, 0.3, 0.3]] * 4)
    batch = {"cls": torch.zeros(4, 1), "bboxes": boxes, "batch_idx": torch.arange(4.0)}
    for images in (torch.rand(4, 3, 64, 64), torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)):
        diagnosis = unvanish.check(model, {**batch, "img": images})
        assert diagnosis.findings == () and "loss" in str(diagnosis)
    assert isinstance(model.model.args, dict)
    assert unvanish.forecast(model, (3, 64, 64)).findings == ()
    model.save(tmp_path / "kept.pt")
    unvanish.check(YOLO(tmp_path / "kept.pt"), {**batch, "img": torch.rand(4, 3, 64, 64)})


def test_its_callbacks_are_pickled_and_only_yolo_is_taken() -> None:
    ours = UltralyticsWatch(YOLO("yolo11n.yaml"), every=3)
    copied = pickle.loads(pickle.dumps(ours.on_train_start))
    assert copied.__self__.attachment.options == {"every": 3}
    with pytest.raises(CheckError, match="YOLO"):
        UltralyticsWatch(nn.Linear(2, 2))
