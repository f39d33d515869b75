"""Which arguments a verb takes: each has an effect there, and any other one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unvanish.core.plain import name_value
from unvanish.core.registry import suggest
from unvanish.train.arguments import NAMES, resolve_name
from unvanish.train.errors import TrainError

DATA = ("data", "task", "batch", "imgsz", "workers", "cache", "download", "seed")
MACHINE = ("device", "amp", "verbose")
SCENES = ("augment", "mosaic", "translate", "scale", "fliplr", "hsv_h", "hsv_s", "hsv_v")
WRITTEN = ("save", "save_txt", "save_conf", "save_crop")  # of predictions
TAKEN: dict[str, tuple[str, ...]] = {
    "val": (*DATA, *MACHINE),
    "check": (*DATA, "fraction", "verbose", "epochs", "close_mosaic", *SCENES),
    "predict": (
        *MACHINE, "imgsz", "conf", "iou", "max_det", "agnostic_nms", "rgb", "classes", *WRITTEN, "project",
        "name", "exist_ok",
    ),
    "export": ("imgsz", "verbose"),
}  # fmt: skip
INSTEAD = {
    ("predict", "show"): "; `prediction.plot()` gives the picture",
    ("predict", "augment"): "; a picture is predicted once, as it is",
    ("predict", "half"): "; amp=fp16 does",
    ("val", "split"): "; name the part under val: of a data YAML",
    ("val", "conf"): "; all boxes count, as the mean average precision asks",
    ("val", "iou"): "; all boxes count, as the mean average precision asks",
}


def require_taken(verb: str, arguments: Mapping[str, Any]) -> None:
    """TrainError if the verb has no use for an argument; what is false is not asked for."""
    taken = TAKEN[verb]
    for given, value in arguments.items():
        name = str(given).replace("-", "_")
        if name in taken or (value is False and (name in NAMES or (verb, name) in INSTEAD)):
            continue
        if (verb, name) in INSTEAD:
            raise TrainError(f"{verb} has no argument {name_value(given)}{INSTEAD[verb, name]}")
        if name in NAMES:
            raise TrainError(
                f"{name} does nothing in {verb}, only in train: leave it out. {verb} takes {', '.join(taken)}"
            )
        near = suggest(name[:80], taken)
        if near:
            raise TrainError(f"{verb} has no argument {name_value(given)}{near}")
        resolve_name(given)  # says that there is none at all
