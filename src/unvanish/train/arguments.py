"""The arguments of a training, under the names that YOLO users type, typed and checked.

Notable:
- One dataclass is the whole list: its defaults, its types, its limits and its help come from its fields.
- A mistyped name is refused with the nearest right one, a wrong value with what would be right.
- What the zoo's YAML says under `train:` stands between the defaults and what the user gives.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from unvanish.core.registry import suggest
from unvanish.lab.tasks import Task, tasks
from unvanish.train.errors import TrainError

OPTIMIZERS = ("auto", "sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("linear", "cosine", "step", "constant")
AMP = ("auto", "bf16", "fp16", "no")
CLIPPERS = ("zclip", "agc")
SHARDING = ("ddp", "fsdp")


def _is(default: Any, text: str, *, least: float | None = None, most: float | None = None,
        words: tuple[str, ...] = ()) -> Any:  # fmt: skip
    return field(default=default, metadata={"help": text, "least": least, "most": most, "words": words})


@dataclass(frozen=True)
class Arguments:
    """Everything a training can be told; `None` means that it is chosen to suit."""

    model: str = _is("", "a zoo name (resnet20.yaml), a YAML of your own, or weights (.safetensors)")
    data: str = _is("", "a data set's name (digits.yaml) or a YAML of your own")
    task: str | None = _is(None, "classify, detect, segment, sentiment, translate, language, sequence")
    epochs: int = _is(100, "passes over the training data", least=1)
    time: float | None = _is(None, "hours to train, in place of epochs", least=0)
    patience: int = _is(100, "epochs without a better fitness before it stops; 0: never", least=0)
    batch: int = _is(64, "samples a step, over all devices", least=1)
    imgsz: int | None = _is(None, "side of the images in pixels; the data set's own", least=1)
    save: bool = _is(True, "write checkpoints")
    save_period: int = _is(-1, "also keep a checkpoint every so many epochs; -1: none", least=-1)
    cache: bool | None = _is(None, "keep decoded images in memory; where they are small")
    device: str | int | list[int] | None = _is(None, "cpu, 0, cuda:1 or mps; the best there is")
    workers: int = _is(0, "processes that load data", least=0)
    project: str | None = _is(None, "folder of the run folders; runs/<task>")
    name: str | None = _is(None, "name of the run folder; the model's, the next free one")
    exist_ok: bool = _is(False, "write into a run folder that exists")
    pretrained: bool | str = _is(False, "weights to begin with: a path")
    optimizer: str = _is("auto", "of the steps", words=OPTIMIZERS)
    verbose: bool = _is(True, "show progress")
    seed: int = _is(0, "of weights, data order, augmentation and dropout", least=0)
    deterministic: bool = _is(True, "deterministic algorithms on a GPU")
    schedule: str = _is("linear", "of the learning rate", words=SCHEDULES)
    cos_lr: bool = _is(False, "the same as schedule=cosine")
    resume: bool | str = _is(False, "go on where a run stopped: true, a run folder, or a checkpoint")
    amp: bool | str = _is("auto", "mixed precision; auto: bf16 on a GPU", words=AMP)
    fraction: float = _is(1.0, "share of the training data that is used", least=0, most=1)
    freeze: int | list[int] | list[str] | None = _is(None, "layers that do not train: the first n, or names")
    lr0: float | None = _is(None, "learning rate after the warm-up; the optimizer's usual one", least=0)
    lrf: float = _is(0.01, "the last learning rate over lr0", least=0)
    momentum: float | None = _is(
        None,
        "of SGD, beta1 of Adam; 0.9, of detectors with a named optimizer 0.937",
        least=0,
        most=1,
    )
    beta2: float = _is(0.999, "of Adam", least=0, most=1)
    nesterov: bool = _is(True, "of SGD")
    weight_decay: float = _is(5e-4, "on weights; never on biases and norms", least=0)
    milestones: list[float] = dataclasses.field(
        default_factory=lambda: [0.5, 0.75],
        metadata={"help": "of schedule=step: when the rate falls to a tenth, as shares of the run"},
    )
    warmup_epochs: float = _is(1.0, "epochs of rising learning rate, at most a third of the run", least=0)
    warmup_momentum: float | None = _is(None, "momentum the warm-up begins with; no other", least=0, most=1)
    warmup_bias_lr: float | None = _is(
        None, "learning rate the warm-up of biases begins with; 0, of detectors with SGD 0.1", least=0
    )
    ramp: bool = _is(False, "batches a step rise from 1 to their number in the warm-up")
    label_smoothing: float = _is(0.0, "of the target classes", least=0, most=1)
    box: float | None = _is(None, "gain of the loss of a detector's boxes; 7.5", least=0)
    cls: float | None = _is(None, "gain of the loss of a detector's classes; 0.5", least=0)
    dfl: float | None = _is(None, "gain of the loss of the sides' distribution; 1.5", least=0)
    mask: float | None = _is(None, "gain of the loss of masks; that of boxes", least=0)
    nbs: int | None = _is(None, "nominal batch: gradients of several batches are added up to it", least=1)
    accumulate: int | None = _is(None, "batches a step, in place of nbs", least=1)
    clip: float | str = _is(
        10.0, "largest gradient norm, 0: no limit; or zclip, agc", least=0, words=CLIPPERS
    )
    ema: bool = _is(True, "validate and save a running mean of the weights")
    ema_decay: float = _is(0.9999, "of the running mean", least=0, most=1)
    ema_tau: float = _is(2000.0, "steps over which the mean lengthens", least=0)
    nonfinite: int = _is(10, "steps in a row without a finite gradient before it stops", least=1)
    augment: bool = _is(True, "the data set's augmentation")
    mosaic: float = _is(1.0, "share of scenes that are put together of four", least=0, most=1)
    close_mosaic: int = _is(10, "epochs without mosaics at the end", least=0)
    translate: float = _is(0.1, "scenes are shifted by up to this share", least=0, most=1)
    scale: float = _is(0.5, "scenes are scaled by up to 1 plus and minus this", least=0, most=0.95)
    fliplr: float = _is(0.5, "share of scenes that are mirrored", least=0, most=1)
    hsv_h: float = _is(0.015, "turns the hue of scenes moves by", least=0, most=1)
    hsv_s: float = _is(0.7, "share the saturation of scenes moves by", least=0, most=1)
    hsv_v: float = _is(0.4, "share the brightness of scenes moves by", least=0, most=1)
    download: bool = _is(True, "fetch a data set that is not there")
    val: bool = _is(True, "validate after each epoch")
    plots: bool = _is(True, "write pictures of the run and of its batches, and the report")
    conf: float = _is(0.25, "least confidence of a predicted box", least=0, most=1)
    iou: float = _is(0.7, "overlap from which the surer of two boxes replaces the other", least=0, most=1)
    max_det: int = _is(300, "boxes of an image, at most", least=1)
    agnostic_nms: bool = _is(False, "boxes of different classes replace each other, too")
    watch: bool = _is(True, "watch the gradients")
    budget: float = _is(0.01, "share of the time that watching may take", least=0, most=1)
    sharding: str = _is("ddp", "with several processes", words=SHARDING)

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

    def gains(self, task: Task) -> dict[str, float]:
        """The gains given for the parts of a task's loss; TrainError where it has no such part."""
        names = dict.fromkeys(name for other in tasks().values() for name in other.gains)
        given = {n: float(g) for n in names if (g := getattr(self, n)) is not None}
        strange = [n for n in given if n not in task.gains]
        if strange:
            parts = f" (it has {', '.join(task.gains)})" if task.gains else ""
            own = f"the loss of the task {task.name} has no such part{parts}"
            raise TrainError(f"{', '.join(strange)}: {own}; leave it out")
        return given

    def plain(self) -> dict[str, Any]:
        """A dict of plain values, as args.yaml holds it."""
        return dataclasses.asdict(self)


HINTS = typing.get_type_hints(Arguments)
NAMES = tuple(f.name for f in fields(Arguments))


def settle(*layers: Mapping[str, Any]) -> Arguments:
    """Arguments from mappings, later ones over earlier ones; TrainError names what is wrong in them."""
    given: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            given[known(key)] = value
    return Arguments(**{key: checked(key, value) for key, value in given.items()})


def sized(side: int | None, task: str) -> int | None:
    """The side of images, rounded up to what the task's networks can halve."""
    stride = tasks()[task].stride if task in tasks() else 1
    if side is None or side % stride == 0:
        return side
    wanted = -(-side // stride) * stride
    print(f"unvanish: imgsz={side} is no multiple of {stride}; {wanted} is taken")
    return wanted


def known(key: str) -> str:
    """The argument's name, dashes as underscores; TrainError suggests the nearest one."""
    name = key.replace("-", "_")
    if name not in NAMES:
        raise TrainError(
            f"there is no argument {key!r}{suggest(name, NAMES)}; `unvanish train --help` lists them"
        )
    return name


def checked(name: str, value: Any) -> Any:
    """A value of the argument's type and within its limits, else TrainError."""
    facts = next(f for f in fields(Arguments) if f.name == name).metadata
    words = facts.get("words", ())
    number = _converted(float, value) if words and isinstance(value, str) else _UNFIT
    fractions = float in typing.get_args(HINTS[name])
    found = number if fractions and number is not _UNFIT else _fitted(HINTS[name], value)
    if found is _UNFIT or (words and isinstance(found, str) and found.lower() not in words):
        choices = f"; it is one of {', '.join(words)}" if words else ""
        near = suggest(str(value), words) if words else ""
        raise TrainError(f"{name}={value!r} is not {_said(HINTS[name])}{near}{choices}")
    if words and isinstance(found, str):
        found = found.lower()
    _limited(name, found, facts.get("least"), facts.get("most"))
    return found


_UNFIT: Any = object()


def _fitted(kind: Any, value: Any) -> Any:
    """The value as the type wants it (whole numbers as fractions, text as numbers), or `_UNFIT`."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        if option is type(None) and (value is None or value in ("", "None", "none")):
            return None
        inner = typing.get_args(option)
        if inner and isinstance(value, (list, tuple)):
            made = [_fitted(inner[0], v) for v in value]
            if _UNFIT not in made:
                return made
        if not inner and type(value) is option:
            return value
    return next((v for o in options if (v := _converted(o, value)) is not _UNFIT), _UNFIT)


def _converted(option: Any, value: Any) -> Any:
    if option is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return _UNFIT
    if option is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if option is str and hasattr(value, "__fspath__"):
        return str(value)
    return _UNFIT


def _limited(name: str, value: Any, least: float | None, most: float | None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if value != value or (least is not None and value < least) or (most is not None and value > most):
        bounds = f"at least {least:g}" if most is None else f"between {least:g} and {most:g}"
        raise TrainError(f"{name}={value!r} is out of range; it is {bounds}")


def _said(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    told = [names.get(o, "a list") for o in options if o is not type(None)]
    return " or ".join(dict.fromkeys(told))
