"""`unvanish train`, `val`, `predict`, `export`: networks from YAML, with arguments as YOLO users type them.

Notable: `unvanish.train.arguments` lists and checks the arguments; `--help` prints that list.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from unvanish.cli.errors import CallError, stoppable
from unvanish.cli.pairs import read_pairs

Words = Annotated[
    list[str] | None, typer.Argument(metavar="NAME=VALUE ...", help="As in epochs=3; or --epochs 3.")
]
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@stoppable
def train(words: Words = None) -> None:
    """Train a network from YAML, watched. See `unvanish train --help`."""
    given = read_arguments(words, "train", TRAIN, ("data",))
    if given is None:
        return
    with train_errors():
        name = given.pop("model", None) or _find_resumed(given)
        changes = {key: given.pop(key) for key in CHANGES if key in given}
        model = _model(name, **changes)
        model.train(given.pop("data", None), **given)


@stoppable
def val(words: Words = None) -> None:
    """Measure loss and metrics of saved weights. See `unvanish val --help`."""
    given = read_arguments(words, "val", VAL, ("model",))
    if given is None:
        return
    with train_errors():
        print(_model(given.pop("model")).val(given.pop("data", None), **given))


@stoppable
def predict(words: Words = None) -> None:
    """Predict files or texts with saved weights. See `unvanish predict --help`."""
    given = read_arguments(words, "predict", PREDICT, ("model", "source"))
    if given is None:
        return
    with train_errors():
        source = given.pop("source")
        for prediction in _model(given.pop("model")).predict(source, stream=True, **given):
            print(prediction, flush=True)


@stoppable
def export(words: Words = None) -> None:
    """Write saved weights in another format. See `unvanish export --help`."""
    given = read_arguments(words, "export", EXPORT, ("model",))
    if given is None:
        return
    with train_errors():
        model = _model(given.pop("model"))
        print(f"wrote {model.export(given.pop('format', 'onnx'), given.pop('path', None), **given)}")


CHANGES = ("activation", "init", "norm", "depth", "width")  # of the network's YAML, for this run
LAB: tuple[Callable[..., None], ...] = (train, val, predict, export)

TRAIN = """unvanish train NAME=VALUE ...    (or --name value)

    unvanish train model=resnet20.yaml data=digits.yaml epochs=3
    unvanish train model=mine.yaml data=mine_data.yaml epochs=50 lr0=0.1 optimizer=sgd cos_lr=true
    unvanish train model=relu-cnn.yaml data=cifar10.yaml activation=gelu init=xavier norm=batch
    unvanish train resume=runs/classify/resnet20
    torchrun --nproc-per-node 2 -m unvanish train model=resnet110.yaml data=cifar10.yaml epochs=200"""
VAL = """unvanish val NAME=VALUE ...

    unvanish val model=runs/classify/resnet20/weights/best.safetensors    (on the data of its training)"""
PREDICT = """unvanish predict NAME=VALUE ...

    unvanish predict model=runs/classify/resnet20/weights/best.safetensors source=pictures/
    unvanish predict model=translate/weights/best.safetensors source="Ein Hund rennt." """
EXPORT = """unvanish export NAME=VALUE ...

    unvanish export model=runs/classify/resnet20/weights/best.safetensors format=onnx [path=net.onnx]
    formats: onnx, torchscript, safetensors"""


def read_arguments(
    words: list[str] | None, command: str, page: str, needed: tuple[str, ...]
) -> dict[str, Any] | None:
    """The arguments of a call; None if the call asks for help, which is printed."""
    if not words or {"-h", "--help"} & set(words):
        print(page.rstrip() + (list_arguments() if command in ("train", "val") else ""))
        return None
    given = correct_names(read_pairs(words), needed)
    missing = [name for name in needed if given.get(name) is None]
    if missing and not given.get("resume"):
        raise CallError(f"{missing[0]}= is missing; see unvanish {command} --help")
    return given


def correct_names(given: dict[str, Any], more: tuple[str, ...]) -> dict[str, Any]:
    """The arguments under their right names; CallError suggests the nearest for a wrong one."""
    from unvanish.train.arguments import resolve_name
    from unvanish.train.errors import TrainError

    own = {"format", "path", *CHANGES, *more}
    try:
        return {key if key in own else resolve_name(key): value for key, value in given.items()}
    except TrainError as error:
        raise CallError(str(error)) from error


def list_arguments() -> str:
    """Every argument with its default and its meaning, one a line."""
    import dataclasses

    from unvanish.train.arguments import Arguments

    lines = ["", "", "arguments (default):"]
    defaults = Arguments()
    for field in dataclasses.fields(Arguments):
        words: tuple[str, ...] = field.metadata.get("words", ())
        default = getattr(defaults, field.name)
        text = str(default).lower() if isinstance(default, bool) or default is None else default
        choices = f": {', '.join(words)}" if words else ""
        lines.append(f"  {f'{field.name}={text}':<26} {field.metadata['help']}{choices}")
    return "\n".join(lines)


@contextlib.contextmanager
def train_errors() -> Iterator[None]:
    """Turn an error of a call, a YAML, data or a run into a CallError."""
    from unvanish.train import errors

    try:
        errors.require()
    except errors.TrainError as error:
        raise CallError(str(error)) from error
    from unvanish.cli.lab import yaml_errors
    from unvanish.train.loop.interrupt import Interrupted

    try:
        with yaml_errors():
            yield
    except Interrupted as error:
        raise CallError(str(error), code=130) from error
    except errors.Diverged as error:
        raise CallError(str(error), code=1) from error
    except errors.TrainError as error:
        raise CallError(str(error)) from error


def _model(name: Any, **changes: Any) -> Any:
    from unvanish.train.model import Model

    return Model(str(name), **changes)


def _find_resumed(given: dict[str, Any]) -> str:
    """The checkpoint of the run that `resume` names; it holds its own specification."""
    from unvanish.train.checkpoint import folder
    from unvanish.train.errors import TrainError

    if not given.get("resume"):
        raise TrainError("model= is missing; `unvanish zoo` lists the names, and your own YAML works too")
    place = given["resume"]
    path = folder.find_latest(given.get("project")) if place is True else folder.find_state(str(place))
    return str(path.with_name("last.safetensors"))
