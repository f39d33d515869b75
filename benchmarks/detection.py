"""YOLO11n trained: on generated scenes, and on coco128's photographs until it knows them by heart.

Run it with `python -m benchmarks.detection`, with `segment` or with `coco128`. Scenes: 128 images of 160
pixels, thirty epochs; every batch is a step, and scenes are mirrored and recoloured only. coco128: 320
pixels, for as many epochs as fit into `--minutes`; it is validated on what it is trained on.

`--reference PYTHON` trains the reference the same way, by the interpreter of an environment that has it, for
as many epochs as ours or `--epochs`; its seconds an epoch are printed after ours. `--busy` does it all once
more beside a program that never sleeps.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

import unvanish
from benchmarks import record
from unvanish.lab.data.spec import SETS

SET = "kind: shapes\nsamples: 128\nval_samples: 64\n"
PLAIN = {"mosaic": 0, "scale": 0, "translate": 0, "plots": False}
STEPS = {"imgsz": 160, "batch": 16, "nbs": 16, "lr0": 0.002, **PLAIN}
SCENES = {
    "detect": STEPS,
    "segment": {**STEPS, "mask": 2.0},  # at the boxes' weight masks drown what tells shapes apart
}
PHOTOGRAPHS = {"imgsz": 320, "batch": 16, "nbs": 16, "lr0": 0.002, "optimizer": "adamw", **PLAIN}
MODELS = {"detect": "yolo11n.yaml", "segment": "yolo11n-seg.yaml", "coco128": "yolo11n.yaml"}
REFERENCE = """
import json, sys, torch
library = torch.library.Library("torchvision", "DEF")  # where its wheel does not fit a torch without CUDA
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
def nms(boxes, scores, limit):  # slower than its own, once there is something to suppress
    from unvanish.lab.detection.suppression import suppress
    return suppress(boxes, scores, torch.zeros(len(boxes)), limit, len(boxes))
library.impl("nms", nms, "CPU")
import torchvision
torchvision.extension._has_ops = lambda: True
from ultralytics import YOLO
torch.set_num_threads(int(sys.argv[2]))
given = json.loads(sys.argv[1])
YOLO("yolo11n.yaml").train(**given)
"""


def ours(task: str, options: argparse.Namespace) -> int:
    """Train, print a line, and return the number of epochs."""
    with tempfile.TemporaryDirectory() as folder:
        data, given = "coco128.yaml", dict(PHOTOGRAPHS)
        if task != "coco128":
            path = Path(folder) / "scenes.yaml"
            path.write_text(SET, encoding="utf-8")
            data, given = str(path), dict(SCENES[task])
        given |= {"epochs": options.epochs or 30, "seed": options.seed, "project": folder}
        if task == "coco128" and not options.epochs:
            given |= {"epochs": 10_000, "time": options.minutes / 60}
        began, spent = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        results = unvanish.YOLO(MODELS[task]).train(data, **given)
        wall = time.perf_counter() - began
        cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime - spent
    told = ", ".join(f"{name} {value:.3f}" for name, value in results.metrics.items())
    print(f"{task}, {torch.get_num_threads()} threads: {told}; {wall:.0f} s, {cpu:.0f} s of the processor")
    each = results.seconds / results.epochs
    print(f"{results.epochs} epochs, {results.steps} steps, {each:.2f} s an epoch with its validation")
    record.append("detection", options, {**results.metrics, "s an epoch": each, "epochs": results.epochs})
    return results.epochs


def reference(python: str, epochs: int, seed: int) -> None:
    """Train the reference on coco128 in another interpreter, and print a line."""
    table = yaml.safe_load((SETS / "coco128.yaml").read_text(encoding="utf-8"))
    places = [Path(os.environ.get("UNVANISH_DATA", ".")) / "coco128", Path("datasets/coco128").resolve()]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "coco128.yaml"
        path = str(next((p for p in places if p.is_dir()), places[-1]).resolve())
        kept = {"path": path, "train": table["train"], "val": table["val"], "names": table["names"]}
        data.write_text(yaml.safe_dump(kept), encoding="utf-8")
        own = {"data": str(data), "epochs": epochs, "seed": seed, "project": folder, "name": "run"}
        given: dict[str, Any] = {**PHOTOGRAPHS, **own, "optimizer": "AdamW", "workers": 0, "device": "cpu"}
        command = [python, "-c", REFERENCE, json.dumps(given), str(torch.get_num_threads())]
        offline = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": folder}
        ours = str(Path(unvanish.__file__).parents[1])  # for the suppression alone
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ours, **offline}
        subprocess.run(command, check=True, env=env, cwd=folder)
        rows = list(csv.DictReader((Path(folder) / "run" / "results.csv").open(encoding="utf-8")))
    last = {key.strip(): float(value) for key, value in rows[-1].items()}
    best = max(float(row["metrics/mAP50(B)"]) for row in rows)
    each = (last["time"] - float(rows[0]["time"])) / max(1, len(rows) - 1)
    print(f"the reference: mAP50 {best:.3f} at best; {len(rows)} epochs, {each:.2f} s an epoch")


@contextlib.contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """Within the block another program keeps a core busy, if wanted."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", nargs="?", choices=list(MODELS), default="detect")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--minutes", type=float, default=55.0, help="of coco128, without --epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", metavar="PYTHON", help="of an environment with the reference")
    parser.add_argument("--busy", action="store_true", help="and once more beside a busy program")
    record.add_option(parser)
    options = parser.parse_args()
    for busy in (False, True) if options.busy else (False,):
        print("beside a busy program" if busy else "alone")
        with neighbour(busy):
            epochs = ours(options.task, options)
            if options.reference and options.task == "coco128":
                reference(options.reference, epochs, options.seed)


if __name__ == "__main__":
    main()
