"""Ultralytics: one line on the YOLO object. A batch is checked, then a training watched."""

import os
import tempfile
from pathlib import Path

os.environ["YOLO_OFFLINE"] = "true"

import numpy as np
import torch
from PIL import Image
from ultralytics import YOLO

import unvanish
from unvanish.integrations.ultralytics import UltralyticsWatch


def draw(root: Path) -> Path:
    """Bright squares on noise, and the YAML that names them."""
    numbers = np.random.RandomState(0)
    for part, count in (("train", 16), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir(parents=True)
        for k in range(count):
            picture, (x, y) = numbers.randint(0, 80, (64, 64, 3)).astype("uint8"), numbers.randint(0, 44, 2)
            picture[y : y + 20, x : x + 20] = 230
            Image.fromarray(picture).save(root / "images" / part / f"{k}.png")
            box = f"0 {(x + 10) / 64} {(y + 10) / 64} 0.3125 0.3125\n"
            (root / "labels" / part / f"{k}.txt").write_text(box)
    (root / "squares.yaml").write_text(
        f"path: {root}\ntrain: images/train\nval: images/val\nnames: [square]\n"
    )
    return root / "squares.yaml"


def main(root: Path) -> None:
    model = YOLO("yolo11n.yaml")
    box = torch.tensor([[0.5, 0.5, 0.3, 0.3]] * 4)
    batch = {"img": torch.rand(4, 3, 64, 64), "cls": torch.zeros(4, 1), "bboxes": box}
    print(unvanish.check(model, {**batch, "batch_idx": torch.arange(4.0)}), "\n")

    ours = UltralyticsWatch(model, on_finding=("log", "guard"))
    options = {"imgsz": 64, "batch": 8, "nbs": 8, "workers": 0, "val": False, "plots": False}
    model.train(data=draw(root), epochs=2, device="cpu", project=root / "runs", verbose=False, **options)
    print(ours.watch)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder).resolve())
