"""Batches of scenes as pictures: what a detector was shown, what is there, and what it finds.

Notable: a picture is an extra; what keeps it from being drawn is said, and the run goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unvanish.lab.detection.boxes import corners
from unvanish.lab.detection.suppression import detections
from unvanish.train.predict.boxes import Boxes, on_image
from unvanish.train.predict.drawing import drawn
from unvanish.train.predict.masks import Masks, mask_on_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from unvanish.train.arguments import Arguments
    from unvanish.train.trainer import Trainer

MOST, SIDE, GAP = 16, 384, 4  # images of a picture; pixels of a tile's side, and between tiles
Seen = tuple[Boxes, Masks | None]  # on a tile


def first_batch(trainer: Trainer, batch: Any) -> None:
    """Draw train_batch0.jpg: a batch as the network sees it, with what it is to find."""
    wanted = trainer.arguments.plots and trainer.task.summed and trainer.accelerator.is_main_process
    if not wanted:
        return
    try:
        x, y = batch
        made = tiled(x, [labelled(y, i) for i in range(len(x[:MOST]))], trainer.about["names"])
        made.save(trainer.save_dir / "train_batch0.jpg", quality=90)
    except Exception as error:
        trainer.show.say(f"train_batch0.jpg could not be drawn: {error}")


def validated(trainer: Trainer) -> None:
    """Draw val_batch0_labels.jpg and val_batch0_pred.jpg: what is there, and what the network finds."""
    if trainer.val is None:
        return
    x, y = next(iter(trainer.val))
    names, classes, x = trainer.about["names"], int(trainer.about["facts"]["classes"]), x[:MOST]
    device = trainer.accelerator.device
    network = trainer.plain.eval().to(device)
    try:
        seen = list(predicted(network, x.to(device), trainer.arguments, classes))
    finally:
        network.cpu()
    labels = [labelled(y, i) for i in range(len(x))]
    for name, shown in (("labels", labels), ("pred", seen)):
        tiled(x, shown, names).save(trainer.save_dir / f"val_batch0_{name}.jpg", quality=90)


def labelled(y: Any, image: int) -> Seen:
    """What is on an image of a batch, by its targets: rows (M, 6), or these and masks (M, S, S)."""
    rows, masks = (y[0].cpu(), y[1].cpu()) if isinstance(y, (tuple, list)) else (y.cpu(), None)
    own = rows[:, 0] == image
    there = rows[own]
    unsure = torch.full((len(there), 1), math.nan)
    boxes = Boxes(torch.cat((corners(there[:, 2:6]) * SIDE, unsure, there[:, 1:2]), 1), (SIDE, SIDE))
    if masks is None:
        return boxes, None
    return boxes, Masks(_enlarged(masks[own][:, None].float())[:, 0] > 0.5, (SIDE, SIDE))


@torch.no_grad()
def predicted(network: torch.nn.Module, x: Tensor, a: Arguments, classes: int) -> Iterator[Seen]:
    """What a network finds on each image of a batch."""
    output = network(x)
    output, prototypes = (output, None) if isinstance(output, Tensor) else output
    found = detections(output.float().cpu(), classes, a.conf, a.iou, a.max_det, agnostic=a.agnostic_nms)
    shape, size = (SIDE, SIDE), x.shape[-1]
    for image, rows in enumerate(found):
        maps = None if prototypes is None else prototypes[image].float().cpu()
        masks = None if maps is None else mask_on_image(rows, maps, shape, size)
        yield on_image(rows, shape, size), masks


def tiled(x: Tensor, seen: Sequence[Seen], names: Sequence[str]) -> Image:
    """Images (B, 3, S, S) from 0 to 1 side by side, each with what is seen on it."""
    from PIL import Image

    columns = math.ceil(math.sqrt(len(seen)))
    rows = math.ceil(len(seen) / columns)
    canvas = Image.new("RGB", (columns * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP), "white")
    for number, (boxes, masks) in enumerate(seen):
        image = _enlarged(x[number : number + 1].float().cpu(), "bilinear")[0]
        tile = drawn((255 * image).round().clamp(0, 255).to(torch.uint8), boxes, names, masks)
        canvas.paste(tile, (number % columns * (SIDE + GAP), number // columns * (SIDE + GAP)))
    return canvas


def _enlarged(x: Tensor, mode: str = "nearest") -> Tensor:
    """Images (B, C, S, S) at the side of a tile."""
    if not len(x):
        return x.new_zeros(0, x.shape[1], SIDE, SIDE)
    return interpolate(x, (SIDE, SIDE), mode=mode, antialias=mode == "bilinear")
