"""What a run is made of, for the trainer that runs it and for all that saves, draws and reports it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from unvanish.clinic.watch import watch
from unvanish.core.diagnosis import Finding, at_least
from unvanish.lab.tasks import Task
from unvanish.train.arguments import Arguments
from unvanish.train.loop import devices, randomness
from unvanish.train.loop.batches import Batches
from unvanish.train.loop.engine import Engine, build_engine
from unvanish.train.loop.optim import choose_momentum
from unvanish.train.loop.progress import Progress
from unvanish.train.loop.record import Record
from unvanish.train.loop.schedule import Rates, choose_bias_rate, count_steps
from unvanish.train.loop.validation import Validation


@dataclass(frozen=True)
class Request:
    """What was asked for: arguments, task, folder, and the description that checkpoints carry."""

    arguments: Arguments
    task: Task
    save_dir: Path
    about: Mapping[str, Any]
    start: int = 0  # steps that were made before, by the run that this one resumes


@dataclass
class Clock:
    """Seconds of the run and of its training steps, and the samples of these."""

    began: float = 0.0  # on `time.perf_counter`, earlier by what passed before a resume
    training: float = 0.0
    samples: int = 0

    def start(self, elapsed: float) -> None:
        """Start, with the seconds that passed before a resume."""
        self.began = time.perf_counter() - elapsed

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.began


@dataclass
class Validations:
    """The last validation and the best one."""

    last: Validation | None = None
    best: Validation | None = None


@dataclass
class TrainingRun:
    """One run: what was asked for, what trains, what it reads, how far it is."""

    request: Request
    engine: Engine
    batches: Batches
    rates: Rates
    record: Record
    progress: Progress
    watch: Any  # a Watch, or None
    validations: Validations = field(default_factory=Validations)
    clock: Clock = field(default_factory=Clock)

    @property
    def fitness(self) -> float:
        """The fitness of the last validation; NaN without one."""
        return self.record.metrics.get(self.request.task.fitness, math.nan)

    @property
    def findings(self) -> list[Finding]:
        """What the watch found, without its notes."""
        found = self.watch.findings if self.watch is not None else ()
        return list(at_least(found, "warning"))

    def health(self) -> str:
        """The gradient in a word, or the codes found; empty without a watch."""
        if self.watch is None:
            return ""
        return " ".join(f.code for f in self.findings) or "healthy"


def build_run(
    network: nn.Module,
    data: Any,
    request: Request,
    accelerator: Any,
    on_finding: Callable[[Finding], None],
) -> TrainingRun:
    """Everything a run starts with; `on_finding` is called with what its watch finds."""
    a, task = request.arguments, request.task
    train = devices.prepare_loader(accelerator, data.train)
    # metrics of a task that sums its loss need all of the validation data on each process
    val = data.val if task.summed else devices.prepare_loader(accelerator, data.val)
    steps = a.epochs * count_steps(a, len(train))
    usual = task.rate(request.about["facts"].get("classes"))
    engine = build_engine(network, accelerator, a, task, steps, usual)
    inner = engine.inner
    rates = Rates(
        a,
        rate=float(inner.param_groups[0]["lr"]),
        biases=choose_bias_rate(a, task.name, inner),
        momentum=choose_momentum(a, task.name),
        batches=len(train),
    )
    progress = Progress(a.verbose and engine.main, task.fitness)
    seen = _open_watch(engine, request, on_finding) if a.watch else None
    inner.register_step_pre_hook(engine.guard.discard)  # after the watch has seen the gradient
    randomness.seed(a.seed + accelerator.process_index)
    return TrainingRun(request, engine, Batches(data, train, val), rates, Record(a.epochs), progress, seen)


def _open_watch(engine: Engine, request: Request, on_finding: Callable[[Finding], None]) -> Any:
    """The watch of a run; its findings are printed above the progress."""
    a = request.arguments
    return watch(
        engine.model,
        engine.inner,
        run=request.save_dir,
        start=request.start,
        budget=a.budget,
        on_finding=[*(["log"] if a.verbose else []), on_finding],
        scaler=engine.accelerator.scaler,
        name=request.save_dir.name,
        ignore=request.task.expected or None,
    )
