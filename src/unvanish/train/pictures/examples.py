"""Examples of what a classifier gets wrong: pictures of a batch with their classes, texts by their loss.

Notable: pictures show truth and prediction, framed by whether they agree; top_losses.csv lists the texts of
the validation, the dearest first.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from unvanish.core.names import show_cell
from unvanish.store.files import write_text
from unvanish.train.loop.devices import to_device
from unvanish.train.loop.run import TrainingRun
from unvanish.train.loop.step import call
from unvanish.train.predict.drawing import Style, draw_words, name_class, save_picture

if TYPE_CHECKING:
    from PIL.Image import Image

MOST, SIDE, GAP, FRAME = 16, 192, 4, 6  # pictures; pixels of one, between them, and of a frame
RIGHT, WRONG = (64, 160, 90), (208, 64, 64)
LISTED, SAMPLES = 50, 10_000  # texts that are listed, and that are looked at
LOOK = Style(font_size=14)


def are_pictures(about: Mapping[str, Any]) -> bool:
    """Whether a classifier's inputs are pictures that can be shown."""
    preparation = about.get("preparation") or {}
    return about.get("task") == "classify" and preparation.get("input") == "image"


def draw_validation(run: TrainingRun) -> None:
    """Draw val_batch0_labels.jpg and val_batch0_pred.jpg of a classifier, or list the dearest texts."""
    about = run.request.about
    if are_pictures(about):
        x, y = next(iter(run.batches.val))
        x, y = x[:MOST], y[:MOST]
        probs = predict_classes(run, x)
        for name, found in (("labels", None), ("pred", probs)):
            save_picture(tile_classes(x, y, found, about), run.request.save_dir / f"val_batch0_{name}.jpg")
    elif about.get("task") == "sentiment" and hasattr(run.batches.data, "decode"):
        write_losses(run)


@torch.no_grad()
def predict_classes(run: TrainingRun, x: Any) -> Tensor:
    """The probabilities (B, classes) that the network gives to inputs."""
    accelerator = run.engine.accelerator
    network = run.engine.network.eval().to(accelerator.device)
    try:
        probs: Tensor = call(network, to_device(accelerator, x)).float().softmax(-1).cpu()
        return probs
    finally:
        network.cpu()


def tile_classes(x: Tensor, y: Tensor, probs: Tensor | None, about: Mapping[str, Any]) -> Image:
    """Pictures (B, C, S, S), as the network sees them, side by side with their classes, or predictions."""
    from PIL import Image

    names, count = about["names"], len(x[:MOST])
    columns = math.ceil(math.sqrt(count))
    size = [n * (SIDE + GAP) - GAP for n in (columns, math.ceil(count / columns))]
    canvas = Image.new("RGB", (size[0], size[1]), "white")
    for number, image in enumerate(restore_pixels(x[:MOST].float().cpu(), about["preparation"])):
        truth = int(y[number])
        lines, frame = [name_class(truth, names)], None
        if probs is not None:
            best = int(probs[number].argmax())
            lines = [f"predicted {name_class(best, names)} {float(probs[number, best]):.2f}"]
            lines += [] if best == truth else [f"truth {name_class(truth, names)}"]
            frame = RIGHT if best == truth else WRONG
        part = draw_words(image, lines, LOOK)
        place = (number % columns * (SIDE + GAP), number // columns * (SIDE + GAP))
        if frame is not None:
            canvas.paste(frame, (*place, place[0] + SIDE, place[1] + SIDE))
            inner = SIDE - 2 * FRAME
            part, place = part.resize((inner, inner)), (place[0] + FRAME, place[1] + FRAME)
        canvas.paste(part, place)
    return canvas


def restore_pixels(x: Tensor, preparation: Mapping[str, Any]) -> Tensor:
    """Normalised pictures (B, C, S, S) as bytes at the size of a tile, (B, C, SIDE, SIDE)."""
    mean, std = (torch.tensor(preparation[key]).view(-1, 1, 1) for key in ("mean", "std"))
    pixels = (255 * (x * std + mean)).clamp(0, 255)
    small = max(x.shape[-2:]) < SIDE
    mode = "nearest" if small else "bilinear"
    return interpolate(pixels, (SIDE, SIDE), mode=mode, antialias=not small).round().to(torch.uint8)


@torch.no_grad()
def write_losses(run: TrainingRun) -> Path:
    """Write top_losses.csv: the validation's texts with the largest losses, and what is predicted."""
    names, data, rows, seen = run.request.about["names"], run.batches.data, list[tuple[Any, ...]](), 0
    for x, y in run.batches.val:
        probs = predict_classes(run, x)
        losses = cross_entropy(probs.clamp_min(1e-12).log(), y.cpu(), reduction="none")
        best = probs.max(-1)
        for ids, truth, loss, sure, label in zip(x, y, losses, best.values, best.indices, strict=True):
            rows.append((float(loss), int(truth), int(label), float(sure), ids.tolist()))
        rows = sorted(rows, key=lambda row: -row[0])[:LISTED]
        seen += len(y)
        if seen >= SAMPLES:
            break
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("loss", "truth", "predicted", "confidence", "text"))
    for loss, truth, label, sure, ids in rows:
        named = [name_class(truth, names), name_class(label, names)]
        words = show_cell(data.decode([i for i in ids if i]))
        table.writerow((f"{loss:.4f}", *map(show_cell, named), f"{sure:.4f}", words))
    return write_text(run.request.save_dir / "top_losses.csv", text.getvalue(), "table")
