"""Batches as pictures: a training batch, and labels and predictions of a validation batch.

Notable: a picture is an extra; if it cannot be drawn, the run says why and continues.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from unvanish.lab.data.letterbox import GREY
from unvanish.lab.detection.boxes import corners
from unvanish.lab.detection.suppression import detections
from unvanish.train.arguments import Arguments
from unvanish.train.loop.run import TrainingRun
from unvanish.train.pictures import examples
from unvanish.train.predict.boxes import Boxes, place_boxes
from unvanish.train.predict.drawing import draw, save_picture
from unvanish.train.predict.masks import Masks, place_masks

if TYPE_CHECKING:
    from PIL.Image import Image

MOST, SIDE, GAP = 16, 384, 4  # images of a picture; pixels of a tile's side and between tiles
Objects = tuple[Boxes, Masks | None]  # on a tile


def draw_first_batch(run: TrainingRun, batch: Any) -> None:
    """Draw train_batch0.jpg: a batch as the network sees it, with its labels."""
    arguments, about, boxed = run.request.arguments, run.request.about, run.request.task.summed
    if not (arguments.plots and run.engine.main and (boxed or examples.are_pictures(about))):
        return
    try:
        x, y = make_square(*batch) if boxed else batch
        if boxed:
            picture = tile(x, [read_labels(y, i) for i in range(len(x[:MOST]))], about["names"], "no object")
        else:
            picture = examples.tile_classes(x, y, None, about)
        save_picture(picture, run.request.save_dir / "train_batch0.jpg")
    except Exception as error:
        run.progress.say(f"train_batch0.jpg could not be drawn: {error}")


def draw_validation(run: TrainingRun) -> None:
    """Draw val_batch0_labels.jpg and val_batch0_pred.jpg: the labels, and what the network finds."""
    if run.batches.val is None:
        return
    if not run.request.task.summed:
        examples.draw_validation(run)
        return
    x, y = next(iter(run.batches.val))
    about, x = run.request.about, x[:MOST]
    device = run.engine.accelerator.device
    network = run.engine.network.eval().to(device)
    try:
        found = list(detect(network, x.to(device), run.request.arguments, int(about["facts"]["classes"])))
    finally:
        network.cpu()
    labels = [read_labels(y, i) for i in range(len(x))]
    for name, objects, none in (("labels", labels, "no object"), ("pred", found, "nothing found")):
        picture = tile(x, objects, about["names"], none)
        save_picture(picture, run.request.save_dir / f"val_batch0_{name}.jpg")


def read_labels(y: Any, image: int) -> Objects:
    """The objects on an image of a batch, from its targets: rows (M, 6), or these and masks (M, S, S)."""
    rows, masks = (y[0].cpu(), y[1].cpu()) if isinstance(y, (tuple, list)) else (y.cpu(), None)
    own = rows[:, 0] == image
    rows = rows[own]
    unknown = torch.full((len(rows), 1), math.nan)  # labels have no confidence
    boxes = Boxes(torch.cat((corners(rows[:, 2:6]) * SIDE, unknown, rows[:, 1:2]), 1), (SIDE, SIDE))
    if masks is None:
        return boxes, None
    large = _resize(masks[own][:, None].float(), "bilinear")[:, 0]
    return boxes, Masks(large > 0.5, (SIDE, SIDE))


@torch.no_grad()
def detect(network: torch.nn.Module, x: Tensor, a: Arguments, classes: int) -> Iterator[Objects]:
    """The objects that a network finds on each image of a batch."""
    output = network(x)
    output, prototypes = (output, None) if isinstance(output, Tensor) else output
    found = detections(output.float().cpu(), classes, a.conf, a.iou, a.max_det, agnostic=a.agnostic_nms)
    shape, size = (SIDE, SIDE), x.shape[-1]
    for image, rows in enumerate(found):
        maps = None if prototypes is None else prototypes[image].float().cpu()
        masks = None if maps is None else place_masks(rows, maps, shape, size)
        yield place_boxes(rows, shape, size), masks


def make_square(x: Tensor, y: Any) -> tuple[Tensor, Any]:
    """Narrow images (B, 3, H, W) made square by grey below or on the right, with their rows and masks."""
    high, wide = x.shape[-2:]
    side = max(high, wide)
    if high == wide:
        return x, y
    rows, masks = (y[0], y[1]) if isinstance(y, (tuple, list)) else (y, None)
    shares = rows.new_tensor([wide, high, wide, high]) / side
    rows = torch.cat((rows[:, :2], rows[:, 2:] * shares), 1)
    x = pad(x, (0, side - wide, 0, side - high), value=GREY / 255)
    if masks is None:
        return x, rows
    most = max(masks.shape[-2:])
    return x, (rows, pad(masks, (0, most - masks.shape[-1], 0, most - masks.shape[-2])))


def tile(x: Tensor, objects: Sequence[Objects], names: Sequence[str], none: str) -> Image:
    """Images (B, 3, S, S) from 0 to 1 side by side, each with its objects; `none` on those without."""
    from PIL import Image

    columns = math.ceil(math.sqrt(len(objects)))
    rows = math.ceil(len(objects) / columns)
    canvas = Image.new("RGB", (columns * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP), "white")
    for number, (boxes, masks) in enumerate(objects):
        image = _resize(x[number : number + 1].float().cpu(), "bilinear")[0]
        part = draw((255 * image).round().clamp(0, 255).to(torch.uint8), boxes, names, masks, none=none)
        canvas.paste(part, (number % columns * (SIDE + GAP), number // columns * (SIDE + GAP)))
    return canvas


def _resize(x: Tensor, mode: str) -> Tensor:
    """Images (B, C, S, S) at the size of a tile."""
    if not len(x):
        return x.new_zeros(0, x.shape[1], SIDE, SIDE)
    return interpolate(x, (SIDE, SIDE), mode=mode, antialias=mode == "bilinear")
