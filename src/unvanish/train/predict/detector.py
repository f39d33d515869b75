"""Detections and masks, image by image, on the original images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.lab.data.inputs import read_scenes
from unvanish.lab.detection.suppression import detections
from unvanish.lab.tasks import tasks
from unvanish.train.arguments import Arguments, fit_side
from unvanish.train.learner import Learner
from unvanish.train.loop import devices
from unvanish.train.predict.boxes import place_boxes
from unvanish.train.predict.keeping import Keeping
from unvanish.train.predict.masks import place_masks
from unvanish.train.predict.prediction import Prediction
from unvanish.train.predict.timing import Timer, in_batches
from unvanish.train.predict.views import Found, call_in_views, call_once


def detect(
    learner: Learner,
    network: nn.Module,
    accelerator: Any,
    source: Any,
    arguments: Arguments,
    keeping: Keeping,
) -> Iterator[Prediction]:
    """A prediction for each image of a source, a batch at a time."""
    preparation, names = learner.about["preparation"], tuple(learner.names)
    size = fit_side(arguments.imgsz, learner.task) or int(preparation["size"])
    classes, timer = int(preparation["classes"]), Timer()
    for group in in_batches(read_scenes(source, size, arguments.rgb), arguments.batch):
        x = devices.to_device(accelerator, torch.cat([one for _, _, one in group]))
        timer.mark("preprocess")
        output, prototypes = _call(network, x, classes, learner.task, keeping.augment)
        timer.mark("inference")
        found = select(output, classes, arguments, keeping.classes)
        made = []
        for number, (origin, image, _) in enumerate(group):
            shape, rows = (image.shape[1], image.shape[2]), found[number]
            masks = None if prototypes is None else place_masks(rows, prototypes[number], shape, size)
            placed: dict[str, Any] = {"boxes": place_boxes(rows, shape, size), "masks": masks, "image": image}
            made.append((origin, output[number], placed))
        timer.mark("postprocess")
        speed = timer.share(len(group))
        for origin, own, placed in made:
            yield Prediction(origin, learner.task, own, names, speed=speed, **placed)
        timer.begin()


def _call(network: nn.Module, x: Tensor, classes: int, task: str, augment: bool) -> Found:
    """The network's output, for one view or, with `augment`, for several."""
    if not augment:
        return call_once(network, x)
    return call_in_views(network, x, classes, tasks()[task].stride if task in tasks() else 1)


def select(output: Tensor, classes: int, a: Arguments, wanted: frozenset[int] | None) -> list[Tensor]:
    """The detections of each image, as rows; `wanted`: only cells whose best class is one of these."""
    if wanted is not None:
        best = output[:, 4 : 4 + classes].argmax(1, keepdim=True)
        chosen = torch.isin(best, torch.tensor(sorted(wanted), device=best.device))
        scores = output[:, 4 : 4 + classes] * chosen
        output = torch.cat((output[:, :4], scores, output[:, 4 + classes :]), 1)
    return detections(output, classes, a.conf, a.iou, a.max_det, agnostic=a.agnostic_nms)
