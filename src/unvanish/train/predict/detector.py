"""Detections and masks, image by image, on the original images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.lab.data.inputs import read_scenes
from unvanish.lab.detection.suppression import detections
from unvanish.train.arguments import Arguments, fit_side
from unvanish.train.learner import Learner
from unvanish.train.loop import devices
from unvanish.train.predict.boxes import place_boxes
from unvanish.train.predict.masks import place_masks
from unvanish.train.predict.prediction import Prediction


def detect(
    learner: Learner, network: nn.Module, accelerator: Any, source: Any, arguments: Arguments
) -> Iterator[Prediction]:
    """A prediction for each image of a source."""
    preparation, names = learner.about["preparation"], tuple(learner.names)
    size = fit_side(arguments.imgsz, learner.task) or int(preparation["size"])
    for origin, image, x in read_scenes(source, size, arguments.rgb):
        started = time.perf_counter()
        output, prototypes = _call(network, devices.to_device(accelerator, x))
        rows = _select(output, int(preparation["classes"]), arguments)
        shape = (image.shape[1], image.shape[2])
        boxes = place_boxes(rows, shape, size)
        masks = None if prototypes is None else place_masks(rows, prototypes[0], shape, size)
        speed = 1e3 * (time.perf_counter() - started)
        more: dict[str, Any] = {"speed": speed, "boxes": boxes, "masks": masks, "image": image}
        yield Prediction(origin, learner.task, output[0], names, **more)


@torch.no_grad()
def _call(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The decoded output, and the prototypes of masks if there are any, on the CPU."""
    output = network(x)
    if isinstance(output, Tensor):
        return output.float().cpu(), None
    return output[0].float().cpu(), output[1].float().cpu()


def _select(output: Tensor, classes: int, a: Arguments) -> Tensor:
    """The detections of one image, as rows."""
    (rows,) = detections(output, classes, a.conf, a.iou, a.max_det, agnostic=a.agnostic_nms)
    return rows
