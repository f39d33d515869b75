"""The arguments of a training, under the names that YOLO users type, typed and checked.

Notable:
- One dataclass is the whole list: its fields hold defaults, types, limits and help.
- The error for an unknown name suggests the nearest known one; that for a wrong value says what is expected.
- A number is finite and in its range, in a list too; a text is one line. So nothing that is typed can ask for
  more memory than there is, or name a folder elsewhere.
- Values under `train:` of the network's YAML override the defaults; the user's own override both.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from unvanish.core.plain import name_value
from unvanish.core.registry import suggest
from unvanish.lab.tasks import Task, tasks
from unvanish.train.errors import TrainError

OPTIMIZERS = ("auto", "sgd", "adam", "adamw", "nadam", "radam", "adamax", "rmsprop")
SCHEDULES = ("linear", "cosine", "step", "constant")
AMP = ("auto", "bf16", "fp16", "no")
CLIPPERS = ("zclip", "agc")
SHARDING = ("ddp", "fsdp")


HALF = 0.5  # of the side, as multi_scale=true means
_PICTURES = "not there; the tasks for pictures are classify, detect, segment"
OTHERS = {"pose": f"poses are {_PICTURES}", "obb": f"oriented boxes are {_PICTURES}"}  # tasks of others
AUTO = -1  # a batch that is measured
LONG = 10**18  # epochs and steps: more than any run has, and small enough to count
SAMPLES, PIXELS = 2**20, 2**14  # of a batch, and of a side: more would not fit into memory
SEED = 2**63 - 1
LARGE, ALMOST = 1e6, 0.9999999  # of a rate, a decay or a gain, whose products must fit into float32; below 1
TEXT = 4096  # letters, at most
CONFLICTS = (("accumulate", "nbs"), ("cos_lr", "schedule"))  # two ways to say the same


def _argument(default: Any, text: str, *, least: float | None = None, most: float | None = None,
        words: tuple[str, ...] = (), plain: bool = False, auto: int | None = None) -> Any:  # fmt: skip
    """A field: default, help, limits, words; `plain`: a name, no path; `auto`: a value beyond the limits."""
    facts = {"help": text, "least": least, "most": most, "words": words, "plain": plain, "auto": auto}
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Arguments:
    """The arguments of a training; `None` leaves the choice to the task, the data or the machine."""

    model: str = _argument("", "a zoo name (resnet20.yaml), a YAML of your own, or weights (.safetensors)")
    data: str = _argument("", "a data set's name (digits.yaml) or a YAML of your own")
    task: str | None = _argument(None, "classify, detect, segment, sentiment, translate, language, sequence")
    epochs: int = _argument(100, "passes over the training data", least=1, most=LONG)
    time: float | None = _argument(None, "hours to train, instead of epochs", least=1e-9, most=1e6)
    patience: int = _argument(
        100, "epochs without a better fitness until it stops; 0: never", least=0, most=LONG
    )
    batch: int = _argument(64, "samples a step; -1: what fits into memory", least=1, most=SAMPLES, auto=AUTO)
    imgsz: int | None = _argument(
        None, "side of the images in pixels; none: the data set's", least=1, most=PIXELS
    )
    save: bool = _argument(True, "write checkpoints")
    save_period: int = _argument(
        -1, "epochs between checkpoints that are kept; -1: none", least=-1, most=LONG
    )
    cache: bool | None = _argument(None, "keep decoded images in memory; none: if they are small")
    device: str | int | list[int] | None = _argument(
        None, "cpu, 0, cuda:1 or mps; none: the best one", least=0, most=10**4
    )
    workers: int = _argument(0, "processes that load data", least=0, most=256)
    threads: int | None = _argument(
        None,
        "threads of the processor; none: torch's, for images with boxes the free cores",
        least=1,
        most=1024,
    )
    project: str | None = _argument(None, "folder of the run folders; none: runs/<task>")
    name: str | None = _argument(
        None, "name of the run folder; none: the model's; the next free one is taken", plain=True
    )
    exist_ok: bool = _argument(False, "overwrite a run folder that exists")
    pretrained: bool | str = _argument(False, "path of weights to start with")
    optimizer: str = _argument("auto", "the optimizer", words=OPTIMIZERS)
    verbose: bool = _argument(True, "show progress")
    seed: int = _argument(0, "seed of weights, data order, augmentation and dropout", least=0, most=SEED)
    deterministic: bool = _argument(True, "deterministic algorithms on a GPU")
    schedule: str = _argument("linear", "schedule of the learning rate", words=SCHEDULES)
    cos_lr: bool = _argument(False, "the same as schedule=cosine")
    resume: bool | str = _argument(False, "continue a run: true, a run folder, or a checkpoint")
    amp: bool | str = _argument("auto", "mixed precision, by default bf16 on a GPU", words=AMP)
    fraction: float = _argument(1.0, "share of the training data that is used", least=0, most=1)
    single_cls: bool = _argument(False, "all objects are of one class")
    classes: int | list[int] | list[str] | str | None = _argument(
        None, "only objects of these classes, by number or name; none: all", least=0, most=10**6
    )
    rect: bool = _argument(False, "batches of scenes as narrow as their images, without mosaics")
    multi_scale: bool | float = _argument(
        False, "sides of scenes differ by up to this share from batch to batch; true: 0.5", least=0, most=0.9
    )
    dropout: float | None = _argument(
        None, "share of features that dropout layers drop; none: the network's own", least=0, most=ALMOST
    )
    freeze: int | list[int] | list[str] | None = _argument(
        None, "layers that do not train: the first n, or a list of names", least=0, most=10**6
    )
    lr0: float | None = _argument(
        None, "learning rate after the warm-up; none: the optimizer's usual one", least=0, most=LARGE
    )
    lrf: float = _argument(0.01, "last learning rate over lr0", least=0, most=LARGE)
    momentum: float | None = _argument(
        None,
        "momentum of SGD, beta1 of Adam; none: 0.9, or 0.937 for detectors with a named optimizer",
        least=0,
        most=1,
    )
    beta2: float = _argument(0.999, "beta2 of Adam", least=0, most=ALMOST)
    nesterov: bool = _argument(True, "Nesterov momentum for SGD")
    weight_decay: float = _argument(5e-4, "decay of weights; never of biases and norms", least=0, most=LARGE)
    milestones: list[float] = dataclasses.field(
        default_factory=lambda: [0.5, 0.75],
        metadata={
            "help": "shares of the run at which schedule=step divides the rate by ten",
            "least": 0.0,
            "most": 1.0,
        },
    )
    warmup_epochs: float = _argument(
        1.0, "epochs of rising learning rate, at most a third of the run", least=0
    )
    warmup_momentum: float | None = _argument(
        None, "first momentum of the warm-up; none: no warm-up of the momentum", least=0, most=1
    )
    warmup_bias_lr: float | None = _argument(
        None,
        "first learning rate of biases in the warm-up; none: 0, or 0.1 for detectors with SGD",
        least=0,
        most=LARGE,
    )
    ramp: bool = _argument(False, "batches a step rise from 1 during the warm-up")
    label_smoothing: float = _argument(0.0, "smoothing of the target classes", least=0, most=ALMOST)
    box: float | None = _argument(None, "gain of a detector's box loss; none: 7.5", least=0, most=LARGE)
    cls: float | None = _argument(None, "gain of a detector's class loss; none: 0.5", least=0, most=LARGE)
    dfl: float | None = _argument(
        None, "gain of a detector's distribution focal loss; none: 1.5", least=0, most=LARGE
    )
    mask: float | None = _argument(None, "gain of the mask loss; none: that of boxes", least=0, most=LARGE)
    nbs: int | None = _argument(
        None, "nominal batch: gradients of several batches are accumulated up to it", least=1, most=SAMPLES
    )
    accumulate: int | None = _argument(None, "batches a step, instead of nbs", least=1, most=SAMPLES)
    clip: float | str = _argument(
        10.0, "largest gradient norm, 0: no limit; or an adaptive one", least=0, words=CLIPPERS
    )
    ema: bool = _argument(True, "validate and save a running mean of the weights")
    ema_decay: float = _argument(0.9999, "decay of the running mean", least=0, most=1)
    ema_tau: float = _argument(2000.0, "steps over which its decay rises", least=0)
    nonfinite: int = _argument(
        10, "steps in a row without a finite gradient until it stops", least=1, most=LONG
    )
    augment: bool = _argument(True, "use the data set's augmentation")
    mosaic: float = _argument(1.0, "share of scenes that are mosaics of four", least=0, most=1)
    close_mosaic: int = _argument(10, "epochs without mosaics at the end", least=0, most=LONG)
    translate: float = _argument(0.1, "scenes are shifted by up to this share", least=0, most=1)
    scale: float = _argument(0.5, "scenes are scaled by 1 plus or minus up to this", least=0, most=0.95)
    degrees: float = _argument(0.0, "scenes are turned by up to this angle", least=0, most=180)
    shear: float = _argument(0.0, "scenes are sheared by up to this angle", least=0, most=80)
    perspective: float = _argument(
        0.0, "scenes are tilted: largest change of scale a pixel", least=0, most=0.001
    )
    flipud: float = _argument(0.0, "share of scenes that are turned upside down", least=0, most=1)
    mixup: float = _argument(0.0, "share of scenes that are blended with another", least=0, most=1)
    copy_paste: float = _argument(
        0.0, "share of outlined objects that are pasted once more, mirrored", least=0, most=1
    )
    fliplr: float = _argument(0.5, "share of scenes that are mirrored", least=0, most=1)
    hsv_h: float = _argument(0.015, "largest change of the hue of scenes, in turns", least=0, most=1)
    hsv_s: float = _argument(0.7, "largest change of the saturation of scenes, as a share", least=0, most=1)
    hsv_v: float = _argument(0.4, "largest change of the brightness of scenes, as a share", least=0, most=1)
    download: bool = _argument(True, "download a data set that is missing")
    val: bool = _argument(True, "validate after each epoch")
    plots: bool = _argument(True, "write pictures of the run and its batches, and the report")
    conf: float = _argument(0.25, "least confidence of a predicted box", least=0, most=1)
    iou: float = _argument(
        0.7, "overlap from which the more confident of two boxes suppresses the other", least=0, most=1
    )
    max_det: int = _argument(300, "largest number of boxes of an image", least=1, most=10**5)
    agnostic_nms: bool = _argument(False, "boxes of different classes suppress each other, too")
    rgb: bool = _argument(False, "arrays that are predicted hold red, green, blue; else OpenCV's order")
    watch: bool = _argument(True, "watch the gradients")
    budget: float = _argument(0.01, "largest share of the time spent on watching", least=1e-9, most=1)
    sharding: str = _argument("ddp", "how several processes share the work", words=SHARDING)

    @property
    def steps_of(self) -> int:
        """Batches of one optimizer step."""
        if self.accumulate is not None:
            return self.accumulate
        return max(1, round((self.nbs or self.batch) / self.batch))

    @property
    def curve(self) -> str:
        """The learning rate's schedule."""
        return "cosine" if self.cos_lr else self.schedule

    @property
    def spread(self) -> float:
        """By which share the sides of scenes differ from batch to batch."""
        return HALF if self.multi_scale is True else float(self.multi_scale)

    def gains(self, task: Task) -> dict[str, float]:
        """The gains given for the parts of a task's loss; TrainError if it has no such part."""
        names = dict.fromkeys(name for other in tasks().values() for name in other.gains)
        given = {n: float(g) for n in names if (g := getattr(self, n)) is not None}
        unknown = [n for n in given if n not in task.gains]
        if unknown:
            parts = f" (it has {', '.join(task.gains)})" if task.gains else ""
            own = f"the loss of the task {task.name} has no such part{parts}"
            raise TrainError(f"{', '.join(unknown)}: {own}; leave it out")
        return given

    def plain(self) -> dict[str, Any]:
        """A dict of plain values, for args.yaml."""
        return dataclasses.asdict(self)


HINTS = typing.get_type_hints(Arguments)
NAMES = tuple(f.name for f in fields(Arguments))


def settle(*layers: Mapping[str, Any]) -> Arguments:
    """Arguments from mappings, later ones over earlier ones; TrainError if a name or a value is wrong.

    The last one holds the user's own, which may not say the same thing in two ways.
    """
    given: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for layer in layers:
        own = {resolve_name(key): value for key, value in layer.items()}
        given |= own
    _refuse_conflicts(own)
    return Arguments(**{key: convert(key, value) for key, value in given.items()})


def fit_side(side: int | None, task: str) -> int | None:
    """The side of images, rounded up to a multiple of the task's stride; None stays None."""
    stride = tasks()[task].stride if task in tasks() else 1
    if side is None or side % stride == 0:
        return side
    wanted = -(-side // stride) * stride
    print(f"unvanish: imgsz={side} is not a multiple of {stride}; using {wanted}")
    return wanted


def resolve_name(key: str) -> str:
    """The argument's name, dashes as underscores; TrainError suggests the nearest one."""
    name = str(key).replace("-", "_")
    if name not in NAMES:
        near = suggest(name[:80], NAMES)
        raise TrainError(f"there is no argument {name_value(key)}{near}; `unvanish train --help` lists them")
    return name


def convert(name: str, value: Any) -> Any:
    """The value in the argument's type; TrainError if it does not fit the type or the limits."""
    facts = next(f for f in fields(Arguments) if f.name == name).metadata
    words = tuple(tasks()) if name == "task" else facts.get("words", ())
    number = _cast(float, value) if words and isinstance(value, str) else _UNFIT
    fractions = float in typing.get_args(HINTS[name])
    found = number if fractions and number is not _UNFIT else _fit(HINTS[name], value)
    if found is _UNFIT or (words and isinstance(found, str) and found.lower() not in words):
        choices = f"; it is one of {', '.join(words)}" if words else ""
        near = suggest(value[:80], words) if words and isinstance(value, str) else ""
        raise TrainError(f"{name}={name_value(value)} is not {_name_types(HINTS[name])}{near}{choices}")
    if words and isinstance(found, str):
        found = found.lower()
    for one in found if isinstance(found, list) else [found]:
        if facts.get("auto") is None or one != facts["auto"]:
            _check_limits(name, one, facts.get("least"), facts.get("most"))
        _check_text(name, one, facts.get("plain", False))
    return found


_UNFIT: Any = object()


def _fit(kind: Any, value: Any) -> Any:
    """The value in the type (a whole number as a fraction, a text as a number), or `_UNFIT`."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        if option is type(None) and (
            value is None or (isinstance(value, str) and value in ("", "None", "none"))
        ):
            return None
        inner = typing.get_args(option)
        if inner and isinstance(value, (list, tuple)):
            values = [_fit(inner[0], v) for v in value]
            if all(v is not _UNFIT for v in values):
                return values
        if not inner and type(value) is option:
            return value
    return next((v for o in options if (v := _cast(o, value)) is not _UNFIT), _UNFIT)


def _cast(option: Any, value: Any) -> Any:
    if isinstance(value, bool):
        return _UNFIT
    if option is float and isinstance(value, (numbers.Real, str)):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return _UNFIT
    if option is int and isinstance(value, numbers.Integral):
        return int(value)
    if option is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if option is str and isinstance(value, os.PathLike):
        return str(value)
    return _UNFIT


def _check_limits(name: str, value: Any, least: float | None, most: float | None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    above = most is not None and value > most
    finite = isinstance(value, int) or math.isfinite(value)
    if finite and not above and (least is None or value >= least):
        return
    bounds = f"at least {least:g}" if most in (None, LONG) else f"between {least:g} and {most:.9g}"
    if most == LONG and above:
        bounds = f"at most {most:g}"
    raise TrainError(f"{name}={name_value(value)} is out of range; it is {bounds}")


def _check_text(name: str, value: Any, plain: bool) -> None:
    """TrainError for a text of several lines or without end, or a path where a name is wanted."""
    if not isinstance(value, str):
        return
    if len(value) > TEXT or not value.isprintable():
        raise TrainError(f"{name}={name_value(value)} is not one line of letters")
    if plain and (value.strip(". ") == "" or set(value) & set("/\\") or len(value.encode()) > 200):
        raise TrainError(f"{name}={name_value(value)} is not the name of a folder; project= takes a path")


def require_model(model: Any, task: Any) -> None:
    """TrainError if this is nothing that a `Model` is made of, or the task is unknown."""
    from torch import nn  # the arguments are listed without it

    if not isinstance(model, (str, os.PathLike, Mapping, nn.Module)) or model in ("", {}):
        ways = "a name such as 'resnet20.yaml', a path, a specification as a dict, or a torch.nn.Module"
        raise TrainError(f"the model is {name_value(model)}; give {ways}")
    if isinstance(model, (str, os.PathLike)):
        _check_text("model", str(model), False)
        for other in OTHERS:
            if os.path.splitext(str(model))[0].endswith(f"-{other}") and not os.path.exists(model):
                raise TrainError(f"{model}: {OTHERS[other]}")
    if isinstance(task, str) and task in OTHERS:
        raise TrainError(f"task={task}: {OTHERS[task]}")
    if task is not None:
        convert("task", task)


def require_weights(weights: Any) -> None:
    """TrainError if this is no path."""
    if not isinstance(weights, (str, os.PathLike)) or not str(weights).strip():
        raise TrainError(f"the weights are {name_value(weights)}; give the path of a file")
    _check_text("weights", str(weights), False)


def _refuse_conflicts(given: Mapping[str, Any]) -> None:
    """TrainError if the same call says the same thing in two ways."""
    for one, other in CONFLICTS:
        first, second = given.get(one), given.get(other)
        agree = one == "cos_lr" and str(second).lower() == "cosine"
        usual = isinstance(second, str) and second == getattr(Arguments, other)
        if _is_given(first) and _is_given(second) and not agree and not usual:
            raise TrainError(
                f"{one}={name_value(first)} and {other}={name_value(second)} are both given; give one of them"
            )


def _is_given(value: Any) -> bool:
    nothing = ("", "none", "None")
    return value is not None and value is not False and not (isinstance(value, str) and value in nothing)


def _name_types(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    kinds = [names.get(o, "a list") for o in options if o is not type(None)]
    return " or ".join(dict.fromkeys(kinds))
