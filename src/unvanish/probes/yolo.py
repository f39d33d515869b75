"""What Ultralytics trains: the network in a `YOLO` object, and its loss for a batch of its own loader.

Notable: it is told by the public names of the library alone. Such a network returns its loss if it is given
the batch, a dict; before a training its settings are a dict, in which it looks by attribute.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

LIBRARY = "ultralytics"
BYTE = 255  # the largest value of an image as it is loaded


def is_yolo(model: Any) -> bool:
    """Whether a module is one of Ultralytics' objects around a network."""
    own = type(model)
    return _is_from_library(own) and hasattr(own, "add_callback") and isinstance(model.model, nn.Module)


def is_detection(model: Any, batch: Any) -> bool:
    """Whether a network of Ultralytics is given a batch of its loader."""
    return isinstance(batch, Mapping) and "img" in batch and _is_from_library(type(model))


def _is_from_library(kind: type) -> bool:
    return any(base.__module__.partition(".")[0] == LIBRARY for base in kind.__mro__)


def run_detection(model: Any, batch: Any) -> Tensor:
    """The loss of a batch, images of bytes as numbers from 0 to 1; the sum, if it has several parts."""
    images = batch["img"]
    if not images.is_floating_point():
        images = images.to(next(model.parameters()).dtype) / BYTE
    if isinstance(settings := getattr(model, "args", None), dict):
        known = getattr(sys.modules.get(f"{LIBRARY}.utils"), "DEFAULT_CFG_DICT", {})
        model.args = SimpleNamespace(**{**known, **settings})  # a saved network keeps few of them
    try:
        found = model({**batch, "img": images})
    finally:
        if isinstance(settings, dict):
            model.args = settings
    value = found[0] if isinstance(found, (tuple, list)) else found
    return torch.as_tensor(value).sum()
