"""YOLO11n on generated scenes: mAP after thirty epochs of 128 images of 160 pixels, and what they cost.

Run it with `python -m benchmarks.detection` or `python -m benchmarks.detection segment`. A recipe for so
small a set: every batch is a step, and scenes are mirrored and recoloured only.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

import unvanish

SET = "kind: shapes\nsamples: 128\nval_samples: 64\n"
RECIPE = {
    "imgsz": 160, "batch": 16, "nbs": 16, "lr0": 0.002, "mosaic": 0, "scale": 0, "translate": 0,
    "plots": False,
}  # fmt: skip
MODELS = {"detect": "yolo11n.yaml", "segment": "yolo11n-seg.yaml"}


def train(task: str, epochs: int, seed: int) -> None:
    """Train, and print a line."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "scenes.yaml"
        data.write_text(SET, encoding="utf-8")
        began, spent = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        given = {"epochs": epochs, "seed": seed, "project": folder, **RECIPE}
        results = unvanish.YOLO(MODELS[task]).train(str(data), **given)
        wall = time.perf_counter() - began
        cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime - spent
    told = ", ".join(f"{name} {value:.3f}" for name, value in results.metrics.items())
    print(f"{task}, {torch.get_num_threads()} threads: {told}; {wall:.0f} s, {cpu:.0f} s of the processor")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", nargs="?", choices=list(MODELS), default="detect")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.task, options.epochs, options.seed)


if __name__ == "__main__":
    main()
