"""Which arguments a verb takes: each has an effect there, and any other one is refused.

Notable: some have an effect for some tasks only, such as what is done to scenes with boxes; for another task
they are refused, too. What other libraries have and this one has not is told in a line that names what there
is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unvanish.core.plain import name_value
from unvanish.core.registry import suggest
from unvanish.train.arguments import AUTO, NAMES, resolve_name
from unvanish.train.errors import TrainError

LABELS = ("single_cls", "classes")
DATA = ("data", "task", "batch", "imgsz", "workers", "cache", "download", "seed", *LABELS)
MACHINE = ("device", "amp", "verbose")
MIXED = (
    "mosaic", "translate", "scale", "degrees", "shear", "perspective", "fliplr", "flipud", "hsv_h", "hsv_s",
    "hsv_v", "mixup", "copy_paste", "multi_scale", "rect",
)  # fmt: skip  # what is done to scenes with boxes
WRITTEN = ("save", "save_txt", "save_conf", "save_crop")  # of predictions
FLAGS = (*WRITTEN, "show", "augment")
CHOSEN = ("conf", "iou", "max_det", "agnostic_nms", "classes")  # which boxes are given out
FILES = ("half", "dynamic", "opset", "simplify")  # of an export
TAKEN: dict[str, tuple[str, ...]] = {
    "train": tuple(name for name in NAMES if name != "rgb"),
    "val": (*DATA, *MACHINE),
    "check": (*DATA, "fraction", "verbose", "epochs", "close_mosaic", "augment", *MIXED),
    "predict": (*MACHINE, "imgsz", "batch", "rgb", *CHOSEN, *FLAGS, "project", "name", "exist_ok"),
    "export": ("imgsz", "verbose", *FILES),
}
BOXES = ("detect", "segment")
ONLY_BOXES: dict[str, tuple[str, ...]] = {
    "train": (*LABELS, *MIXED),
    "val": LABELS,
    "check": (*LABELS, *MIXED),
    "predict": (*CHOSEN, "save_txt", "save_conf", "save_crop"),
}  # arguments that need boxes
ONLY_PICTURES = ("imgsz", "rgb", "batch", "augment", "save", "show")  # of predict
_TRACKED = "objects are not tracked; predict(stream=True) gives the boxes of each frame"
_POSES = "poses are not there; the tasks for pictures are classify, detect, segment"
_DRAWN = "`prediction.plot(labels=, conf=, boxes=, line_width=)` draws so"
_FEATURES = "features are not given out; a forward hook on `model.network` gives them"
_SHIFTED = "pictures of a classifier are shifted and mirrored by their data set (`crop`, `flip` of its YAML)"
ELSEWHERE: dict[str, str] = {
    "tracker": _TRACKED, "persist": _TRACKED, "pose": _POSES, "kobj": _POSES,
    "show_labels": _DRAWN, "show_conf": _DRAWN, "show_boxes": _DRAWN, "line_width": _DRAWN,
    "line_thickness": _DRAWN,
    "embed": _FEATURES, "visualize": _FEATURES, "auto_augment": _SHIFTED, "erasing": _SHIFTED,
    "bgr": "colours are read as files have them; `rgb=true` says that arrays are not in OpenCV's order",
    "retina_masks": "masks have the size of the picture already",
    "overlap_mask": "each object has a mask of its own already",
    "mask_ratio": "masks are learned at a quarter of the image's side",
    "vid_stride": "every frame is read; an iterator of frames gives others",
    "stream_buffer": "every frame is read; an iterator of frames gives others",
    "save_frames": "`save=true` writes a picture of each frame",
    "save_json": "`prediction.to_json()` gives it",
    "int8": "an export holds float32, or float16 with half=true",
    "nms": "an export gives all boxes, and `Model(FILE).predict` chooses among them",
    "cutmix": "there are mosaic, mixup and copy_paste",
    "copy_paste_mode": "objects are pasted mirrored",
}  # fmt: skip
INSTEAD = {
    ("predict", "half"): "; amp=fp16 does",
    ("val", "split"): "; name the part under val: of a data YAML",
    ("val", "conf"): "; all boxes count, as the mean average precision asks",
    ("val", "iou"): "; all boxes count, as the mean average precision asks",
    ("train", "rgb"): "; files say themselves how their colours go",
    ("export", "batch"): "; any number of samples goes through the file",
}
ABSENT = {
    "track": _TRACKED,
    "tune": "arguments are not searched for; train(...) with each set of them, one after the other",
    "benchmark": "`val` measures speed and metrics, `export` checks each file that it writes",
    "embed": _FEATURES,
    "fuse": "convolutions stay apart from their norms; `export` writes them as the exporter joins them",
}  # methods that users look for


def require_taken(verb: str, arguments: Mapping[str, Any]) -> None:
    """TrainError if the verb has no use for an argument; what is false is not asked for."""
    taken = TAKEN[verb]
    for given, value in arguments.items():
        name = str(given).replace("-", "_")
        known = name in NAMES or name in ELSEWHERE or (verb, name) in INSTEAD
        if name in taken or (value is False and known):
            continue
        if (verb, name) in INSTEAD:
            raise TrainError(f"{verb} has no argument {name_value(given)}{INSTEAD[verb, name]}")
        if name in NAMES:
            others = "train" if name in TAKEN["train"] else "predict"
            does = f"{name} does nothing in {verb}, only in {others}: leave it out"
            raise TrainError(f"{does}. {verb} takes {', '.join(taken)}")
        if name in ELSEWHERE:
            raise TrainError(f"{verb} has no argument {name_value(given)}: {ELSEWHERE[name]}")
        near = suggest(name[:80], taken)
        if near:
            raise TrainError(f"{verb} has no argument {name_value(given)}{near}")
        resolve_name(given)  # says that there is none at all


def require_task(verb: str, task: str, arguments: Mapping[str, Any], pictures: bool = True) -> None:
    """TrainError if an argument has no effect for the task; `pictures`: whether inputs are some."""
    for given, value in arguments.items():
        name = str(given).replace("-", "_")
        if value is None or (isinstance(value, (bool, int, float)) and not value):
            continue
        if name in ONLY_BOXES.get(verb, ()) and task not in BOXES:
            raise TrainError(
                f"{name} is for boxes (tasks {' and '.join(BOXES)}), not for {task}: leave it out"
            )
        if name == "batch" and value == AUTO and verb != "train":
            raise TrainError(f"batch=-1 is measured for a training; {verb} takes a number")
        if name == "label_smoothing" and task in BOXES:
            raise TrainError(f"{name} does nothing for {task}, whose targets are soft already: leave it out")
        if verb == "predict" and name in ONLY_PICTURES and not pictures:
            raise TrainError(
                f"{name}={name_value(value)} is for pictures; {task} takes none here: leave it out"
            )


def find_instead(name: str) -> str:
    """What to do instead of a method that is not there; empty for any other name."""
    return ABSENT.get(name, "")
