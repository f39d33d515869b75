"""From arguments to a finished run: data, network, folder, loop, pictures, results.

Notable: a resumed run takes its arguments from its own checkpoint; what would make it another run is refused.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import unvanish
from unvanish.core.diagnosis import Diagnosis
from unvanish.lab.tasks import task as known_task
from unvanish.train.arguments import Arguments, settle, sized
from unvanish.train.checkpoint import folder, state
from unvanish.train.checkpoint.file import load_state
from unvanish.train.errors import TrainError
from unvanish.train.finish import finished
from unvanish.train.loop import devices, randomness
from unvanish.train.loop.freezing import freeze
from unvanish.train.loop.validation import validate
from unvanish.train.report.results import Results
from unvanish.train.report.verdict import outlook
from unvanish.train.trainer import Trainer

if TYPE_CHECKING:
    from unvanish.train.model import Model

FREE = (
    "epochs", "time", "patience", "device", "workers", "verbose", "resume", "save_period", "plots", "budget",
    "cache", "download", "project", "name", "exist_ok",
)  # fmt: skip  # what may change where a run goes on


def train(model: Model, arguments: Arguments, data: Any, given: Mapping[str, Any]) -> Results:
    """Train a model, or go on with a run of it; `given` is what the caller said, for `resume`."""
    held, place = None, None
    if arguments.resume:
        path = (
            folder.latest(arguments.project)
            if arguments.resume is True
            else folder.state_of(str(arguments.resume))
        )
        held, place = load_state(path), path.parent.parent
        arguments = continued(held, given)
    model.callbacks.run("on_pretrain_routine_start", model)
    trainer = prepared(model, arguments, data, held, place)
    model.callbacks.run("on_pretrain_routine_end", trainer)
    trainer.run()
    return finished(model, trainer)


def continued(held: Mapping[str, Any], given: Mapping[str, Any]) -> Arguments:
    """The arguments of a run that goes on."""
    own = held["arguments"]
    other = [k for k, v in given.items() if k not in FREE and k in own and v != own[k]]
    if other:
        raise TrainError(
            f"resume goes on with {other[0]}={own[other[0]]!r}, not {given[other[0]]!r}; leave it out, or"
            " begin a new run with pretrained=PATH"
        )
    free = {k: v for k, v in given.items() if k in FREE}
    arguments = settle(own, free)
    done = held["record"]["epoch"]
    if done >= arguments.epochs:
        raise TrainError(f"the run has ended, after {done} epochs; give epochs= more than that to train on")
    return arguments


def prepared(
    model: Model, arguments: Arguments, data: Any, held: Mapping[str, Any] | None, place: Path | None
) -> Trainer:
    """The trainer of a run, with everything it begins with."""
    arguments.gains(_task(model))  # what is wrong in them is said before anything is made
    made = devices.accelerator(arguments)
    with made.main_process_first():  # which fetches and prepares what the others then read
        found = opened(data if data is not None else arguments.data, arguments, model.task)
    randomness.seed(arguments.seed)
    network = model.build(**found.facts)
    if arguments.pretrained and arguments.pretrained is not True and held is None:
        model.load(str(arguments.pretrained))
    freeze(network, arguments.freeze)
    if _task(model).summed:  # convolutions of scenes are faster with channels last
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    about = described(model, found, arguments.data)
    save_dir = place or devices.agreed(made, lambda: folder.made(arguments, model.task, model.name))
    trainer = Trainer(network, arguments, _task(model), found, save_dir, about, model.callbacks, made)
    if held is not None:
        state.restore(trainer, held)
    introduced(trainer, network, model, found)
    return trainer


def introduced(trainer: Trainer, network: nn.Module, model: Model, found: Any) -> None:
    """Say what is trained on what, what the forecast sees, and what was broken in the data."""
    say, count = trainer.show.say, sum(p.numel() for p in network.parameters())
    held = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    frozen = f", {held:,} of them frozen" if held else ""
    say(f"{model.name}: {count:,} parameters{frozen}; {getattr(found, 'description', '')}")
    problems = list(getattr(found, "problems", ()))
    if problems:
        more = f"{len(problems)} problems in the data, the first" if problems[1:] else "a problem in the data"
        say(f"{more}: {problems[0]}")
    if trainer.show.shown:
        said = foreseen(network, found)
        if said:
            say(said)
    steps = trainer.arguments.epochs * trainer.steps_an_epoch
    kind, where = type(trainer.inner).__name__, trainer.accelerator.device
    say(f"{kind}, lr0 {trainer.rate:g}, {steps:,} steps on {where}; everything goes to {trainer.save_dir}")


def foreseen(network: nn.Module, found: Any) -> str:
    """The forecast's line, or why there is none; no random generator moves."""
    with _unmoved():
        batch = next(iter(found.val if found.val is not None else found.train))
        try:
            return outlook(unvanish.forecast(network, batch=batch))
        except Exception as error:  # whatever a foreign network does without data, it may be trained
            return f"forecast: none, theory cannot follow this network ({str(error).splitlines()[0][:90]})"


@contextlib.contextmanager
def _unmoved() -> Iterator[None]:
    kept = randomness.states()
    try:
        yield
    finally:
        randomness.restore(kept)


def opened(data: Any, arguments: Arguments, task: str) -> Any:
    """The data: a name or path by `open_data`, anything with a loader called `train` as it is."""
    if hasattr(data, "train"):
        return data
    if not data:
        raise TrainError("there is no data; give data=, a name such as digits.yaml or a YAML of your own")
    from unvanish.lab.data import open_data
    from unvanish.lab.data.mosaic import Mixing
    from unvanish.lab.data.scenes import Scenes

    a = arguments
    return open_data(
        data, task=task, batch=a.batch, workers=a.workers, seed=a.seed, cache=a.cache,
        imgsz=sized(a.imgsz, task), fraction=a.fraction, download=a.download, augment=a.augment,
        mixing=Mixing(a.mosaic, a.translate, a.scale, max(0, a.epochs - a.close_mosaic)),
        colours=Scenes(a.fliplr, a.hsv_h, a.hsv_s, a.hsv_v),
    )  # fmt: skip


def described(model: Model, found: Any, data: str) -> dict[str, Any]:
    """What a checkpoint says of itself: specification, facts, names, preparation, versions."""
    facts = json.loads(json.dumps(dict(found.facts)))
    spec = dict(model.spec.document) if model.spec is not None else None
    return {
        "format": 1,
        "name": model.name,
        "task": model.task,
        "spec": spec,
        "facts": facts,
        "names": [str(n) for n in _listed(getattr(found, "names", ()))],
        "preparation": dict(getattr(found, "preparation", {})),
        "data": data,
        "unvanish": unvanish.__version__,
        "torch": torch.__version__,
    }


def _listed(names: Any) -> list[Any]:
    return list(names.values()) if isinstance(names, Mapping) else list(names or ())


def _task(model: Model) -> Any:
    return known_task(model.task)


def val(model: Model, arguments: Arguments, data: Any) -> Results:
    """Validate a model on the validation part of the data."""
    found = opened(
        data if data is not None else arguments.data or model.about.get("data"), arguments, model.task
    )
    if found.val is None:
        raise TrainError("the data has no validation part; name one in its YAML, under val:")
    network, made, task = model.build(**found.facts), devices.accelerator(arguments), _task(model)
    prepared = made.prepare_model(network, evaluation_mode=True)
    loader = found.val if task.summed else devices.loader(made, found.val)
    metrics = task.metrics(found.facts, decode=getattr(found, "decode", None))
    model.callbacks.run("on_val_start", model)
    done = validate(
        made, prepared, made.unwrap_model(prepared), loader, task.loss(), metrics, count=task.samples
    )
    model.callbacks.run("on_val_end", model)
    return Results(
        model.task,
        done.metrics,
        done.metrics.get(task.fitness, math.nan),
        speed={"validation": done.milliseconds},
        loss=done.loss,
        tables=done.tables,
        names=tuple(map(str, _listed(getattr(found, "names", ())))),
    )


def examined(model: Model, arguments: Arguments, data: Any) -> Diagnosis:
    """`check` on the first training batch of the data, with the task's loss."""
    found = opened(
        data if data is not None else arguments.data or model.about.get("data"), arguments, model.task
    )
    with _unmoved():
        randomness.seed(arguments.seed)
        network = model.build(**found.facts)
        batch = next(iter(found.train))
        return unvanish.check(network.train(), batch, _task(model).loss(), name=model.name)
