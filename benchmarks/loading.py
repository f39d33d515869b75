"""How fast data are loaded, and how fast networks consume them: samples a second at batch 128.

Run it with `python -m benchmarks.loading`. Every row times whole batches out of the training loader,
augmentation and normalisation included, after the first one. "needed" is the rate at which a small network
trains on the same batches on this machine, forward, backward and step: loading is no bottleneck where the
first number is well above it. Photographs of 640 pixels are generated into a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import record
from unvanish.lab.data import Data, DataError, open_data
from unvanish.lab.tasks import task

PHOTOS, DISTINCT = 256, 32


@dataclass(frozen=True)
class Case:
    """One row: what it is called, the set, and how it is opened."""

    name: str
    source: str
    options: dict[str, object]


def photographs(folder: Path) -> None:
    """JPEG files of 640x480 in YOLO's layout and as class folders, with the texture of photographs."""
    generator = np.random.default_rng(0)
    distinct = []
    for _ in range(DISTINCT):
        coarse = Image.fromarray(generator.integers(0, 256, (60, 80, 3), np.uint8)).resize((640, 480))
        fine = Image.fromarray(generator.integers(0, 256, (480, 640, 3), np.uint8)).filter(ImageFilter.BLUR)
        buffer = BytesIO()
        Image.blend(coarse, fine, 0.3).save(buffer, "JPEG", quality=90)
        distinct.append(buffer.getvalue())
    for index in range(PHOTOS):
        for place in (folder / "images" / "train", folder / "train" / ("even", "odd")[index % 2]):
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index:04}.jpg").write_bytes(distinct[index % DISTINCT])
        labels = folder / "labels" / "train"
        labels.mkdir(parents=True, exist_ok=True)
        (labels / f"{index:04}.txt").write_text("0 0.5 0.5 0.4 0.4\n", encoding="utf-8")
    text = f"path: {folder}\ntrain: images/train\nnames: [thing]\n"
    (folder / "photos.yaml").write_text(text, encoding="utf-8")


def cases(folder: Path, batch: int) -> list[Case]:
    """What is measured."""
    photos, yolo = str(folder), str(folder / "photos.yaml")
    plain: list[tuple[str, str, dict[str, object]]] = [
        ("digits, 8 px", "digits", {}),
        ("digits, 32 px", "digits", {"imgsz": 32}),
        ("adding, 200 steps", "adding", {}),
        ("cifar10, 32 px", "cifar10", {"download": False}),
        ("rt-polarity, words", "rt-polarity", {"download": False}),
        ("multi30k, byte pairs", "multi30k", {"download": False}),
        ("photos, 224 px, in memory", photos, {"imgsz": 224, "cache": True}),
        ("photos, 224 px, 2 workers", photos, {"imgsz": 224, "cache": False, "workers": 2}),
        ("boxes, 640 px, in memory", yolo, {"imgsz": 640, "cache": True}),
        ("boxes, 640 px, no worker", yolo, {"imgsz": 640, "cache": False}),
        ("boxes, 640 px, 2 workers", yolo, {"imgsz": 640, "cache": False, "workers": 2}),
    ]
    return [Case(name, source, {"batch": batch, **options}) for name, source, options in plain]


def rate(data: Data, seconds: float) -> float:
    """Samples a second out of the training loader, over whole passes for at least that long."""
    count, spent, epoch = 0, 0.0, 0
    while spent < seconds:
        data.start_epoch(epoch)
        batches = iter(data.train)
        if epoch == 0:
            next(batches)  # workers start
        started = time.perf_counter()
        count += sum(len(first(batch)) for batch in batches)
        spent += time.perf_counter() - started
        epoch += 1
    return count / spent


def first(batch: object) -> torch.Tensor:
    """The first tensor of a batch."""
    while isinstance(batch, tuple | list):
        batch = batch[0]
    assert isinstance(batch, torch.Tensor)
    return batch


def consumer(data: Data) -> nn.Module:
    """A small convolutional network for images of the set."""
    channels, classes = int(data.facts["channels"]), int(data.facts["classes"])
    layers = [nn.Conv2d(channels, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))


def needed(data: Data, steps: int = 2) -> float:
    """Samples a second that a small network trains on."""
    x, y = next(iter(data.train))
    net, loss = consumer(data), task("classify").loss()
    y = y if y.ndim == 1 else torch.zeros(len(x), dtype=torch.long)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    started = time.perf_counter()
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
    return steps * len(x) / (time.perf_counter() - started)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="", help="measure the rows whose name holds this text")
    record.add_option(parser)
    options = parser.parse_args()
    table = Table("data", "opened in s", "loaded / s", "needed / s", "times", title=f"batch {options.batch}")
    figures: dict[str, record.Figure] = {}
    with tempfile.TemporaryDirectory() as folder:
        chosen = [c for c in cases(Path(folder), options.batch) if options.only in c.name]
        if any(str(folder) in case.source for case in chosen):
            photographs(Path(folder))
        for case in chosen:
            started = time.perf_counter()
            try:
                data = open_data(case.source, **case.options)  # type: ignore[arg-type]
            except DataError as error:
                table.add_row(case.name, "not here", *[str(error).splitlines()[0][:30]], "", "")
                continue
            opened, loaded = time.perf_counter() - started, rate(data, options.seconds)
            figures[f"{case.name}: loaded / s"] = loaded
            wanted = needed(data) if "channels" in data.facts else None
            cells = [f"{wanted:,.0f}", f"{loaded / wanted:.1f}"] if wanted else ["", ""]
            table.add_row(case.name, f"{opened:.1f}", f"{loaded:,.0f}", *cells)
    Console(width=100).print(table)
    record.append("loading", options, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
