"""Fine-tuning against a beginning from nothing: YOLO11n knows shapes, then learns other classes, larger.

Run it with `python -m benchmarks.finetune`: first the detector is trained on four generated shapes at 160
pixels; then, for three epochs each, on 96 scenes at 192 pixels whose classes are two of these under their
names and one under a new name, once from those weights and once from nothing, with equal seeds. It prints how
many tensors the training began with, and the mean average precision of both. `--seeds` repeats the second
part.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import record
from unvanish.lab.data.kinds.shapes import draw_pictures
from unvanish.train import Model
from unvanish.train.transfer import find_rows

FIRST = "kind: shapes\nsamples: 256\nval_samples: 64\n"
CLASSES = {3: "star", 0: "circle", 1: "box"}  # of the shapes; squares have another name, triangles none
COMMON = {
    "batch": 16,
    "nbs": 16,
    "lr0": 0.002,
    "optimizer": "adamw",
    "mosaic": 0,
    "plots": False,
    "verbose": False,
}


def write_scenes(folder: Path, count: int, seed: int, side: int) -> None:
    """Write images and label files of scenes."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    order = list(CLASSES)
    for i, picture in enumerate(draw_pictures(count, side, 4, seed)):
        Image.fromarray(picture.pixels).save(folder / "images" / f"{i}.png")
        rows = zip(picture.labels.classes, picture.labels.boxes, strict=True)
        lines = [f"{order.index(c)} {' '.join(f'{v:.5f}' for v in box)}" for c, box in rows if c in CLASSES]
        (folder / "labels" / f"{i}.txt").write_text("\n".join(lines))


def begin(
    model: Model, data: Path, folder: Path, seed: int, epochs: int
) -> tuple[dict[str, torch.Tensor], float]:
    """The weights that a training begins with, and its mean average precision at its end."""
    seen: dict[str, torch.Tensor] = {}

    def look(trainer: Any) -> None:
        seen.update({k: v.clone() for k, v in trainer.run.engine.network.state_dict().items()})

    model.add_callback("on_pretrain_routine_end", look)
    results = model.train(str(data), epochs=epochs, imgsz=192, seed=seed, project=str(folder), **COMMON)
    return seen, float(results.metrics["mAP50-95"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=30, metavar="EPOCHS")
    parser.add_argument("--epochs", type=int, default=3)
    record.add_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shapes.yaml").write_text(FIRST)
        for part, count, seed in (("train", 96, 11), ("val", 64, 12)):
            write_scenes(folder / part, count, seed, 192)
        names = ", ".join(CLASSES.values())
        (folder / "other.yaml").write_text(f"train: train/images\nval: val/images\nnames: [{names}]\n")
        model = Model("yolo11n.yaml")
        model.train(str(folder / "shapes.yaml"), epochs=options.first, imgsz=160, project=name, **COMMON)
        best = model.results.best
        known = Model(best)
        own = {k: v.clone() for k, v in known.network.state_dict().items()}
        rows = find_rows(known.spec, known.facts)
        scores = []
        for seed in range(options.seeds):
            seen, tuned = begin(Model(best), folder / "other.yaml", folder / "a", seed, options.epochs)
            same = sum(torch.equal(seen[k], own[k]) for k in own if seen[k].shape == own[k].shape)
            left = {k for k in own if seen[k].shape != own[k].shape or not torch.equal(seen[k], own[k])}
            fresh = begin(Model("yolo11n.yaml"), folder / "other.yaml", folder / "b", seed, options.epochs)[1]
            scores.append((tuned, fresh))
            start = (
                f"{same} of {len(own)} tensors equal at first, the others the classes': {left == set(rows)}"
            )
            print(f"seed {seed}: {start}; mAP {tuned:.3f} tuned, {fresh:.3f} from nothing", flush=True)
        tuned, fresh = (float(np.median(s)) for s in zip(*scores, strict=True))
        print(f"median of {len(scores)}: {tuned:.3f} tuned, {fresh:.3f} from nothing")
        record.append(
            "finetune", options, {"tuned": tuned, "fresh": fresh, "same": same, "tensors": len(own)}
        )


if __name__ == "__main__":
    main()
