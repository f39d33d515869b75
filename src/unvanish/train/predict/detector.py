"""What a detector or a segmenter finds, image by image, on the images as they were given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unvanish.lab.detection.suppression import detections
from unvanish.train.arguments import Arguments, sized
from unvanish.train.loop import devices
from unvanish.train.predict.boxes import on_image
from unvanish.train.predict.masks import mask_on_image
from unvanish.train.predict.prediction import Prediction

if TYPE_CHECKING:
    from unvanish.train.model import Model


def found(
    model: Model, network: nn.Module, made: Any, source: Any, arguments: Arguments
) -> Iterator[Prediction]:
    """A prediction for each image of a source."""
    from unvanish.lab.data.inputs import scenes

    preparation, names = model.about["preparation"], tuple(model.names)
    size = sized(arguments.imgsz, model.task) or int(preparation["size"])
    for origin, image, x in scenes(source, size):
        started = time.perf_counter()
        output, prototypes = _called(network, devices.moved(made, x))
        rows = _kept(output, int(preparation["classes"]), arguments)
        shape = (image.shape[1], image.shape[2])
        boxes = on_image(rows, shape, size)
        masks = None if prototypes is None else mask_on_image(rows, prototypes[0], shape, size)
        speed = 1e3 * (time.perf_counter() - started)
        more: dict[str, Any] = {"speed": speed, "boxes": boxes, "masks": masks, "image": image}
        yield Prediction(origin, model.task, output[0], names, **more)


@torch.no_grad()
def _called(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The decoded output, and prototypes where it makes masks, on the CPU."""
    output = network(x)
    if isinstance(output, Tensor):
        return output.float().cpu(), None
    return output[0].float().cpu(), output[1].float().cpu()


def _kept(output: Tensor, classes: int, a: Arguments) -> Tensor:
    """The detections of one image, as rows."""
    (rows,) = detections(output, classes, a.conf, a.iou, a.max_det, agnostic=a.agnostic_nms)
    return rows
