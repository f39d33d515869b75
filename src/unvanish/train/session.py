"""From arguments to a finished run: data, network, folder, loop, pictures, results.

Notable: a resumed run takes its arguments from its checkpoint, and refuses those that would make it another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unvanish.clinic.check import check
from unvanish.clinic.forecast import forecast
from unvanish.core.diagnosis import Diagnosis
from unvanish.core.plain import name_value
from unvanish.core.version import __version__
from unvanish.lab.data import Data, open_data
from unvanish.lab.data.bending import Bending
from unvanish.lab.data.mosaic import Mixing
from unvanish.lab.data.problems import Problems
from unvanish.lab.data.scenes import Scenes
from unvanish.lab.models.backbones import without_fetching
from unvanish.lab.tasks import Task
from unvanish.lab.tasks import task as find_task
from unvanish.train.arguments import AUTO, Arguments, fit_side, settle
from unvanish.train.checkpoint import folder, saving, state
from unvanish.train.checkpoint.file import Checkpoint, load, load_state
from unvanish.train.errors import TrainError
from unvanish.train.finish import finish
from unvanish.train.learner import Learner, network_errors, require_network
from unvanish.train.loop import cores, devices, randomness
from unvanish.train.loop.dropping import set_dropout
from unvanish.train.loop.fitting import fit_batch
from unvanish.train.loop.freezing import freeze
from unvanish.train.loop.optim import group_parameters
from unvanish.train.loop.run import Request, TrainingRun
from unvanish.train.loop.validation import validate
from unvanish.train.own_transforms import name_transforms, refuse_augmentation, require_transforms
from unvanish.train.report.results import Results
from unvanish.train.report.verdict import describe_forecast
from unvanish.train.trainer import Trainer

KINDS = 8  # sorts of problems that are listed
FREE = (
    "epochs", "time", "patience", "device", "workers", "threads", "verbose", "resume", "save_period", "plots",
    "budget", "cache", "download", "project", "name", "exist_ok",
)  # fmt: skip  # arguments that may change when a run is resumed


def train(
    learner: Learner, arguments: Arguments, data: Any, given: Mapping[str, Any], transforms: Any = None
) -> Results:
    """Train, or resume a run; `given` are the caller's own arguments, which `resume` compares.

    `transforms`: the user's own, in place of the data's augmentation.
    """
    saved, place = None, None
    refuse_augmentation(given, data, transforms)
    if arguments.resume:
        path = (
            folder.find_latest(arguments.project)
            if arguments.resume is True
            else folder.find_state(str(arguments.resume))
        )
        saved, place = load_state(path), path.parent.parent
        state.refuse_damaged(saved)
        require_transforms(saved, transforms)
        arguments = resume_arguments(saved, given, (place / folder.END).is_file())
    with contextlib.ExitStack() as held:
        learner.callbacks.run("on_pretrain_routine_start", learner)
        with contextlib.ExitStack() as undo, network_errors(learner, "be trained on this data"):
            trainer = prepare(learner, arguments, data, saved, place, held, undo, transforms)
            undo.pop_all()  # from here on the folder stays
        learner.callbacks.run("on_pretrain_routine_end", trainer)
        with network_errors(learner, "be trained on this data", ours=lambda: trainer.run.record.step > 0):
            trainer.train()
        return finish(learner, trainer.run)


def resume_arguments(saved: Mapping[str, Any], given: Mapping[str, Any], ended: bool) -> Arguments:
    """The arguments of a resumed run: its own, and the free ones given; TrainError if others differ.

    `ended`: whether the run has its results; one that was killed before is brought to its end.
    """
    own = saved["arguments"]
    other = [k for k, v in given.items() if k not in FREE and k in own and v != own[k]]
    if other:
        raise TrainError(
            f"resume continues with {other[0]}={own[other[0]]!r}, not {given[other[0]]!r}; leave it out, or"
            " start a new run with pretrained=PATH"
        )
    arguments = settle(own, {k: v for k, v in given.items() if k in FREE})
    done = saved["record"]["epoch"]
    if done >= arguments.epochs and ended:
        raise TrainError(f"the run has ended, after {done} epochs; give a larger epochs= to train on")
    return arguments


def prepare(
    learner: Learner, arguments: Arguments, data: Any, saved: Mapping[str, Any] | None, place: Path | None,
    held: contextlib.ExitStack, undo: contextlib.ExitStack, transforms: Any = None,
) -> Trainer:  # fmt: skip
    """The trainer of a run, whose folder is claimed until `held` ends, and taken away by `undo`.

    `saved` and `place` are state and folder of the run to resume.
    """
    task = find_task(learner.task)
    arguments.gains(task)  # refused before anything is written
    accelerator = devices.build_accelerator(arguments)
    device, processes = accelerator.device.type, accelerator.num_processes
    threads, few = cores.choose_threads(arguments, task.summed, device, processes)
    held.enter_context(cores.use_threads(threads))
    arguments = replace(arguments, threads=threads)
    with accelerator.main_process_first():  # it downloads and prepares what the others read
        weights = read_pretrained(arguments) if saved is None else None
        if weights is not None and weights.about.get("spec") is not None:  # it says what data it is for
            learner.take(weights)
            weights = None
        known = find_preparation(learner, saved)
        chosen = data if data is not None else arguments.data
        source = open_source(chosen, arguments, learner.task, known, transforms)
    randomness.seed(arguments.seed)
    network = learner.adapt(source.facts, list_names(source))
    if weights is not None:
        learner.take(weights)
    if arguments.batch == AUTO:
        arguments = settle_batch(arguments, network, source, accelerator.device)
        source = open_source(chosen, arguments, learner.task, known, transforms)
    set_dropout(network, arguments.dropout)
    freeze(network, arguments.freeze)
    group_parameters(network, arguments.weight_decay)  # refused, too, if none trains
    if task.summed:  # convolutions of scenes are faster with channels last
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    about = describe(learner, source, arguments.data)
    if transforms is not None:
        about["transforms"] = name_transforms(transforms)
    save_dir = place or devices.share_choice(
        accelerator, lambda: folder.make_folder(arguments, learner.task, learner.name, held, undo)
    )
    if place is not None and accelerator.is_main_process:
        held.enter_context(folder.claim(place))
    start = 0 if saved is None else int(saved["record"]["step"])
    request = Request(arguments, task, save_dir, about, start)
    trainer = Trainer(network, source, request, learner.callbacks, accelerator)
    held.callback(trainer.close)
    undo.callback(trainer.close)
    if saved is not None:
        state.restore(trainer.run, saved)
        if accelerator.is_main_process:
            (save_dir / folder.END).unlink(missing_ok=True)
            folder.write_rows(save_dir, trainer.record.rows)
    elif arguments.save and not trainer.run.engine.sharded:  # gathering an optimizer's state steps it
        saving.save_run(trainer.run, better=False)  # from here on the run can be resumed
    introduce(trainer.run, learner.name, network, source, few)
    return trainer


def settle_batch(arguments: Arguments, network: nn.Module, source: Any, device: torch.device) -> Arguments:
    """The arguments with the largest batch that fits into memory; TrainError if loaders are given."""
    if not isinstance(source, Data):
        raise TrainError("batch=-1: the batches are made by the loaders; leave it out")
    usual, inputs = count_usual(source.task), next(iter(source.train))[0]
    batch, words = fit_batch(network, inputs, device, usual, source.sizes["train"])
    print(f"unvanish: {words}")
    return dataclasses.replace(arguments, batch=batch)


def count_usual(task: str) -> int:
    """The samples of a step, for a task, if nobody says otherwise."""
    return int(find_task(task).defaults.get("batch", Arguments.batch))


def introduce(run: TrainingRun, name: str, network: nn.Module, data: Any, few: str = "") -> None:
    """Print what is trained on what, problems in the data, the forecast, and where results go.

    `few`: a word on the threads, if they are few.
    """
    say, count = run.progress.say, sum(p.numel() for p in network.parameters())
    fixed = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    frozen = f", {fixed:,} of them frozen" if fixed else ""
    say(f"{name}: {count:,} parameters{frozen}; {getattr(data, 'description', '')}")
    for line in list_problems(getattr(data, "problems", ())):
        say(line)
    if run.progress.shown:
        outlook = foresee(network, data)
        if outlook:
            say(outlook)
    steps = run.rates.count_all(run.request.arguments.epochs)
    kind, where = type(run.engine.inner).__name__, run.engine.accelerator.device
    target = run.request.save_dir
    say(f"{kind}, lr0 {run.rates.rate:g}, {steps:,} steps on {where}{few}; everything goes to {target}")


def list_problems(problems: Any) -> list[str]:
    """The problems of the data by sort, with their number and an example each, the most frequent first."""
    if not isinstance(problems, Problems):
        return [f"a problem in the data: {problem}" for problem in list(problems)[:KINDS]]
    examples: dict[str, str] = {}
    for problem in problems:
        examples.setdefault(problem.sort, str(problem))
    lines = [f"{n:,} x {s}: {examples.get(s, 'see data.problems')}" for s, n in problems.counts.items()]
    rest = [f"and {len(lines) - KINDS} more sorts"] if len(lines) > KINDS else []
    return [f"in the data: {line}" for line in [*lines[:KINDS], *rest]]


def foresee(network: nn.Module, data: Any) -> str:
    """The forecast in a line, or why there is none; the random states stay as they are."""
    with randomness.preserve():
        batch = next(iter(data.val if data.val is not None else data.train))
        try:
            return describe_forecast(forecast(network, batch=batch))
        except Exception as error:  # a network that fails without data may still train
            return f"forecast: none, theory cannot follow this network ({str(error).splitlines()[0][:90]})"


def read_pretrained(arguments: Arguments) -> Checkpoint | None:
    """The weights that `pretrained` names, if it does."""
    path = arguments.pretrained
    return load(path) if isinstance(path, str) and path else None


def find_preparation(learner: Learner, saved: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """How the weights that a training begins with, or that it left, have their data prepared."""
    if saved is None:
        return learner.about.get("preparation") if learner.loaded else None
    about = saved.get("about")
    return about.get("preparation") if isinstance(about, Mapping) else None


def open_source(
    data: Any,
    arguments: Arguments,
    task: str,
    known: Mapping[str, Any] | None = None,
    transforms: Any = None,
) -> Any:
    """The data: a name or path is opened; an object with a loader called `train` is taken as it is.

    `known`: the preparation of loaded weights, which is kept; images have their size if none is asked for.
    `transforms`: the user's own, in place of the augmentation.
    """
    if all(hasattr(data, part) for part in ("train", "val", "facts")):
        return data
    if data is not None and not isinstance(data, (str, Path, Mapping)):
        raise TrainError(
            f"data is {name_value(data)}; give a data set's name, a YAML of your own, or Loaders(train, val)"
        )
    if not data:
        raise TrainError("there is no data; give data=, a name such as digits.yaml or a YAML of your own")
    a = arguments
    return open_data(
        data, task=task, batch=count_usual(task) if a.batch == AUTO else a.batch,
        workers=a.workers, seed=a.seed, cache=a.cache,
        imgsz=fit_side(a.imgsz or (known or {}).get("size"), task), known=known, fraction=a.fraction,
        download=a.download, augment=a.augment,
        mixing=Mixing(
            0.0 if a.rect else a.mosaic, a.translate, a.scale, max(0, a.epochs - a.close_mosaic),
            Bending(a.degrees, a.shear, a.perspective), a.mixup, a.copy_paste,
        ),
        colours=Scenes(a.fliplr, a.hsv_h, a.hsv_s, a.hsv_v, a.flipud, a.spread), transforms=transforms,
        classes=a.classes, single=a.single_cls, narrow=a.rect,
    )  # fmt: skip


def describe(learner: Learner, data: Any, name: str) -> dict[str, Any]:
    """The description in a checkpoint: specification, facts, names, preparation, versions."""
    facts = json.loads(json.dumps(dict(data.facts)))
    spec = without_fetching(learner.spec.document) if learner.spec is not None else None
    return {
        "format": 1,
        "name": learner.name,
        "task": learner.task,
        "spec": spec,
        "facts": facts,
        "names": list_names(data),
        "preparation": dict(getattr(data, "preparation", {})),
        "data": name,
        "unvanish": __version__,
        "torch": torch.__version__,
    }


def list_names(data: Any) -> list[str]:
    """The names of the classes, in order; none if the data has none."""
    names = getattr(data, "names", ()) or ()
    return [str(name) for name in (names.values() if isinstance(names, Mapping) else names)]


def val(learner: Learner, arguments: Arguments, data: Any) -> Results:
    """Validate on the validation part of the data."""
    task, source = find_task(learner.task), reopen_source(learner, arguments, data)
    if source.val is None:
        raise TrainError("the data has no validation part; name one in its YAML, under val:")
    require_network(learner)
    network = learner.suit(source.facts, list_names(source)).eval()
    accelerator = devices.build_accelerator(arguments)
    model = accelerator.prepare_model(network, evaluation_mode=True)
    network = accelerator.unwrap_model(model)
    loader = source.val if task.summed else devices.prepare_loader(accelerator, source.val)
    metrics = task.metrics(source.facts, decode=getattr(source, "decode", None))
    learner.callbacks.run("on_val_start", learner)
    with network_errors(learner, "be validated on this data"):
        done = validate(accelerator, model, network, loader, task.loss(), metrics, count=task.samples)
    learner.callbacks.run("on_val_end", learner)
    return Results(
        learner.task,
        done.metrics,
        done.metrics.get(task.fitness, math.nan),
        speed={"validation": done.milliseconds},
        loss=done.loss,
        tables=done.tables,
        names=tuple(list_names(source)),
    )


def examine(learner: Learner, arguments: Arguments, data: Any) -> Diagnosis:
    """`check` on the first training batch of the data, with the task's loss."""
    task: Task = find_task(learner.task)
    source = reopen_source(learner, arguments, data)
    with randomness.preserve():
        randomness.seed(arguments.seed)
        network = learner.suit(source.facts, list_names(source))
        batch, training = next(iter(source.train)), network.training
        try:
            return check(network.train(), batch, task.loss(), name=learner.name)
        finally:
            network.train(training)


def reopen_source(learner: Learner, arguments: Arguments, data: Any) -> Any:
    """The data given, else that of the arguments, else that of the training; of one class if that was."""
    known = learner.about.get("preparation")
    if isinstance(known, Mapping) and known.get("single_cls"):
        arguments = dataclasses.replace(arguments, single_cls=True)
    source = data if data is not None else arguments.data or learner.about.get("data")
    return open_source(source, arguments, learner.task, known)
