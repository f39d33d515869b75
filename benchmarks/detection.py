"""YOLO11n on generated scenes: mAP after thirty epochs of 128 images of 160 pixels, and what they cost.

    python benchmarks/detection.py [detect|segment] [epochs]

A recipe for so small a set: every batch is a step, and scenes are mirrored and recoloured only.
"""

from __future__ import annotations

import resource
import sys
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


def main(task: str = "detect", epochs: str = "30") -> None:
    """Train, and print a line."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "scenes.yaml"
        data.write_text(SET, encoding="utf-8")
        began, spent = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        results = unvanish.YOLO(MODELS[task]).train(str(data), epochs=int(epochs), project=folder, **RECIPE)
        wall = time.perf_counter() - began
        cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime - spent
    told = ", ".join(f"{name} {value:.3f}" for name, value in results.metrics.items())
    print(f"{task}, {torch.get_num_threads()} threads: {told}; {wall:.0f} s, {cpu:.0f} s of the processor")


if __name__ == "__main__":
    main(*sys.argv[1:])
